//! Where a folder is, without holding it open.

use std::sync::Arc;

use crate::model::path_text::path_text;

/// A folder's name and its parent's place, up to the root. Sharing parents, a million places cost little.
#[derive(Debug)]
pub struct Place {
    parent: Option<Arc<Place>>,
    /// At the root: its path as the user gave it.
    name: Box<[u8]>,
}

impl Place {
    pub(super) fn root(path: &[u8]) -> Arc<Place> {
        Arc::new(Place { parent: None, name: path.into() })
    }

    pub(super) fn child(self: &Arc<Place>, name: &[u8]) -> Arc<Place> {
        Arc::new(Place { parent: Some(self.clone()), name: name.into() })
    }

    /// The path below the root, slash-separated, of `name` in this folder; of the folder itself if `name` is empty. The root's own is empty.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = if name.is_empty() { vec![] } else { vec![name] };
        let mut at = self;
        while let Some(parent) = &at.parent {
            parts.push(&at.name);
            at = parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// The same as text, with the root before it: what messages name.
    pub(super) fn text_of(&self, name: &[u8]) -> String {
        let mut root = self;
        while let Some(parent) = &root.parent {
            root = parent;
        }
        let below = self.path_of(name);
        let mut path = root.name.to_vec();
        if !below.is_empty() {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend(below);
        }
        path_text(&path)
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Drop for Place {
    /// Level by level: the default would recurse once per level and overflow the stack below a deep enough tree.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.parent.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_its_path_below_the_root_and_for_messages() {
        let root = Place::root(b"/data");
        let deep = root.child(b"a").child(b"b\xff");
        assert_eq!(root.path_of(b""), b"");
        assert_eq!(deep.path_of(b"f"), b"a/b\xff/f");
        assert_eq!(deep.text_of(b""), "/data/a/b\\xff");
        assert_eq!(Place::root(b"/").text_of(b"x"), "/x");
    }

    #[test]
    fn a_million_levels_are_dropped_without_a_stack_overflow() {
        let mut place = Place::root(b"/");
        for _ in 0..1_000_000 {
            place = place.child(b"d");
        }
        drop(place);
    }
}
