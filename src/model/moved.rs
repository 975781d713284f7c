//! Volumes that are under another ordinal than they were: told by what keepset itself wrote down, never by what is in them.

use crate::model::claim::{ClaimId, ClaimShape};

/// A volume that is another claim's by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The claim that has it.
    pub claim: String,
    pub volume: String,
    /// The claim that had it.
    pub was: String,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has volume {}, which was that of {}", self.claim, self.volume, self.was)
    }
}

/// A claim with its name, as it is or as a point recorded it.
pub type Known<'a> = (&'a ClaimId, &'a str, &'a ClaimShape);

/// Those of `here` whose volume was another's when `recorded` was written. What a restore has filled since is right, whatever volume it got.
pub fn moved<'a>(here: impl IntoIterator<Item = Known<'a>>, recorded: &[Known<'_>]) -> Vec<Moved> {
    let other = |(id, name, shape): Known<'a>| {
        let volume = shape.volume.as_ref()?;
        let own = recorded.iter().find(|(recorded, ..)| *recorded == id);
        let filled_before = own.and_then(|(.., shape)| shape.restored_by.as_ref());
        if shape.restored_by.is_some() && shape.restored_by.as_ref() != filled_before {
            return None;
        }
        let (_, was, _) = recorded.iter().find(|(recorded, _, shape)| *recorded != id && shape.volume.as_ref() == Some(volume))?;
        Some(Moved { claim: name.to_owned(), volume: volume.clone(), was: (*was).to_owned() })
    };
    here.into_iter().filter_map(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::set::Ordinal;

    fn claim(ordinal: u32, volume: &str, restored_by: Option<&str>) -> (ClaimId, String, ClaimShape) {
        let id = ClaimId { ordinal: Ordinal(ordinal), template: "data".into() };
        let name = id.name("web");
        (id, name, ClaimShape { volume: Some(volume.into()), restored_by: restored_by.map(str::to_owned), ..ClaimShape::default() })
    }

    fn known(claims: &[(ClaimId, String, ClaimShape)]) -> Vec<Known<'_>> {
        claims.iter().map(|(id, name, shape)| (id, name.as_str(), shape)).collect()
    }

    #[test]
    fn a_volume_of_another_ordinal_is_told_and_a_new_one_is_not() {
        let recorded = [claim(0, "a", None), claim(1, "b", None)];
        assert_eq!(moved(known(&recorded), &known(&recorded)), []);
        let swapped = [claim(0, "b", None), claim(1, "a", None)];
        let told: Vec<String> = moved(known(&swapped), &known(&recorded)).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["data-web-0 has volume b, which was that of data-web-1", "data-web-1 has volume a, which was that of data-web-0"]
        );
        assert_eq!(moved(known(&[claim(0, "c", None), claim(2, "d", None)]), &known(&recorded)), []);
        assert_eq!(moved(known(&[claim(2, "a", None)]), &known(&recorded)).len(), 1, "an ordinal that was not there");
    }

    #[test]
    fn a_claim_that_was_filled_since_may_have_whatever_volume() {
        let recorded = [claim(0, "a", Some("run-1")), claim(1, "b", None)];
        let filled = [claim(0, "b", Some("run-2")), claim(1, "a", Some("run-2"))];
        assert_eq!(moved(known(&filled), &known(&recorded)), []);
        let swapped = [claim(0, "b", Some("run-1")), claim(1, "c", None)];
        assert_eq!(moved(known(&swapped), &known(&recorded)).len(), 1);
    }

    #[test]
    fn places_that_know_no_volumes_have_none_that_moved() {
        let nothing = (ClaimId { ordinal: Ordinal(0), template: "data".into() }, "data-web-0".to_owned(), ClaimShape::default());
        assert_eq!(moved(known(std::slice::from_ref(&nothing)), &known(&[claim(1, "b", None)])), []);
    }
}
