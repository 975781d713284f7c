//! Passwords and the key objects that they open: `keys/<id>`, plain JSON with the master key sealed under scrypt of the password.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::model::id::Id;
use crate::repository::MAX_SMALL;
use crate::repository::codec::id_of;
use crate::repository::crypto::MasterKey;
use crate::repository::error::RepositoryError;
use crate::store::{ErrorKind, Store};

/// Where key objects are.
pub const FOLDER: &str = "keys";

/// What opens a repository. Forgotten by memory when dropped; never printed.
#[derive(Clone)]
pub struct Password {
    text: Zeroizing<Vec<u8>>,
    strength: Strength,
}

/// How hard the key derivation must make guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// Typed or chosen by people: as costly to try as restic makes it.
    Chosen,
    /// 256 random bits of our own making: nobody guesses it, so a fast derivation loses nothing.
    Generated,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// A password of people, taken as it is.
    pub fn chosen(text: Vec<u8>) -> Self {
        Password { text: Zeroizing::new(text), strength: Strength::Chosen }
    }

    /// A new random one, as 64 hex digits.
    pub fn generate() -> Result<Self, RepositoryError> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        crate::random::fill(&mut *bytes)?;
        Ok(Password { text: Zeroizing::new(data_encoding::HEXLOWER.encode(&*bytes).into_bytes()), strength: Strength::Generated })
    }

    /// The password itself, to be written to the file that will hold it and nowhere else.
    pub fn reveal(&self) -> &[u8] {
        &self.text
    }

    pub fn strength(&self) -> Strength {
        self.strength
    }
}

/// A key object as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyObject {
    // restic cannot read an empty time, but it can do without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub hostname: String,
    pub kdf: String,
    #[serde(rename = "N")]
    pub n: u64,
    pub r: u32,
    pub p: u32,
    pub salt: String,
    pub data: String,
}

/// Who made a key and when: for people who list keys.
#[derive(Clone, Debug, Default)]
pub struct KeyOrigin {
    /// RFC 3339.
    pub created: String,
    pub username: String,
    pub hostname: String,
}

/// The master key's JSON inside a key object.
#[derive(Serialize, Deserialize)]
struct Secret {
    mac: MacSecret,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacSecret {
    k: String,
    r: String,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.encrypt.zeroize();
        self.mac.k.zeroize();
        self.mac.r.zeroize();
    }
}

/// Derivation costs beyond this many bytes of memory are refused: a hostile repository could ask for any. restic's keys ask for 32 MiB,
/// rustic's for 128.
const MAX_SCRYPT_MEMORY: u64 = 256 << 20;
/// And beyond this much work, `N · r · p`: some ten seconds.
const MAX_SCRYPT_WORK: u64 = 1 << 25;
/// All keys that are tried take no more than this together: some fifty of restic's.
const MAX_TOTAL_WORK: u64 = 1 << 26;

impl KeyObject {
    /// Seals `master` under `password`.
    pub fn new(master: &MasterKey, password: &Password, origin: KeyOrigin) -> Result<Self, RepositoryError> {
        let (n, r, p) = match password.strength() {
            Strength::Chosen => (1 << 15, 8, 4),
            Strength::Generated => (1 << 10, 8, 1),
        };
        let mut salt = [0u8; 64];
        crate::random::fill(&mut salt)?;
        let bytes = master.to_bytes();
        let secret = Secret {
            mac: MacSecret { k: BASE64.encode(&bytes[32..48]), r: BASE64.encode(&bytes[48..]) },
            encrypt: BASE64.encode(&bytes[..32]),
        };
        let mut object = KeyObject {
            created: origin.created,
            username: origin.username,
            hostname: origin.hostname,
            kdf: "scrypt".to_owned(),
            n,
            r,
            p,
            salt: BASE64.encode(&salt),
            data: String::new(),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&secret).expect("strings always serialise"));
        let user = object.derive(password).map_err(|reason| RepositoryError::damaged("a new key", reason))?;
        object.data = BASE64.encode(&user.cipher().seal(&plain)?);
        Ok(object)
    }

    /// The master key, if this is the password that seals it. `Err` tells why the object can be no key at all.
    pub fn open(&self, password: &Password) -> Result<Option<MasterKey>, String> {
        let user = self.derive(password)?;
        let sealed = BASE64.decode(self.data.as_bytes()).map_err(|e| format!("its data is not base64: {e}"))?;
        let Ok(plain) = user.cipher().open(&sealed) else { return Ok(None) };
        let plain = Zeroizing::new(plain);
        let secret: Secret = serde_json::from_slice(&plain).map_err(|_| "its sealed part is not the JSON of a key".to_owned())?;
        let mut bytes = Zeroizing::new([0u8; 64]);
        for (text, place) in [(&secret.encrypt, 0..32), (&secret.mac.k, 32..48), (&secret.mac.r, 48..64)] {
            let part = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| "a part of it is not base64".to_owned())?);
            if part.len() != place.len() {
                return Err("a part of it has the wrong length".to_owned());
            }
            bytes[place].copy_from_slice(&part);
        }
        Ok(Some(MasterKey::from_bytes(&bytes)))
    }

    /// What it costs to try the key, in scrypt's own measure.
    fn work(&self) -> u64 {
        self.n.saturating_mul(u64::from(self.r)).saturating_mul(u64::from(self.p))
    }

    fn derive(&self, password: &Password) -> Result<MasterKey, String> {
        if self.kdf != "scrypt" {
            return Err(format!("its key derivation is `{}`, not scrypt", self.kdf.chars().take(20).collect::<String>()));
        }
        let memory = self.n.saturating_mul(128).saturating_mul(u64::from(self.r));
        let work = self.work();
        if !self.n.is_power_of_two() || self.n < 2 || memory > MAX_SCRYPT_MEMORY || work > MAX_SCRYPT_WORK {
            return Err(format!("its scrypt parameters are out of bounds: N={}, r={}, p={}", self.n, self.r, self.p));
        }
        let log_n = u8::try_from(self.n.trailing_zeros()).expect("at most 63");
        let params = scrypt::Params::new(log_n, self.r, self.p).map_err(|e| format!("its scrypt parameters are refused: {e}"))?;
        let salt = BASE64.decode(self.salt.as_bytes()).map_err(|e| format!("its salt is not base64: {e}"))?;
        let mut bytes = Zeroizing::new([0u8; 64]);
        scrypt::scrypt(password.reveal(), &salt, &params, &mut *bytes).map_err(|e| e.to_string())?;
        Ok(MasterKey::from_bytes(&bytes))
    }
}

/// Puts a key object and returns its id.
pub async fn save(store: &Store, object: &KeyObject) -> Result<Id, RepositoryError> {
    let body = serde_json::to_vec(object).expect("strings and numbers always serialise");
    let id = id_of(&body);
    store.put_new(&format!("{FOLDER}/{id}"), body.into()).await?;
    Ok(id)
}

/// Every key object that can be read, with the reason where it cannot. Begins anew where one goes meanwhile, since another has come before it:
/// somebody replaces a password.
pub async fn list(store: &Store) -> Result<Vec<(Id, Result<KeyObject, String>)>, RepositoryError> {
    let mut tries = 3;
    loop {
        tries -= 1;
        let (keys, is_whole) = list_once(store).await?;
        if is_whole || tries == 0 {
            return Ok(keys);
        }
    }
}

/// The keys that were listed and are there, and whether these are all that were listed.
async fn list_once(store: &Store) -> Result<(Vec<(Id, Result<KeyObject, String>)>, bool), RepositoryError> {
    let (mut keys, mut is_whole) = (Vec::new(), true);
    for object in store.list(FOLDER).await? {
        let Some(Ok(id)) = object.key.strip_prefix("keys/").map(str::parse::<Id>) else { continue };
        let body = match store.get_within(&object.key, MAX_SMALL as u64).await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                is_whole = false;
                continue;
            }
            Err(error) if error.kind == ErrorKind::TooLong => {
                keys.push((id, Err("it is far too long".to_owned())));
                continue;
            }
            got => got?,
        };
        // The name is no MAC, but it finds rot before anybody blames the password.
        let key = if id_of(&body) == id {
            serde_json::from_slice(&body).map_err(|e| e.to_string())
        } else {
            Err("its bytes are not those that its name says".to_owned())
        };
        keys.push((id, key));
    }
    Ok((keys, is_whole))
}

/// The keys in the order of what it costs to try them, as far as all of them together stay bounded, and how many that passes over.
///
/// Who can write to the store can plant keys that take seconds to try. The keys of users cost less and come first.
fn affordable(mut keys: Vec<(Id, Result<KeyObject, String>)>) -> (Vec<(Id, Result<KeyObject, String>)>, usize) {
    let cost = |key: &Result<KeyObject, String>| key.as_ref().map_or(0, KeyObject::work);
    keys.sort_by_key(|(_, key)| cost(key));
    let mut spent = 0u64;
    let mut within = |(_, key): &(Id, Result<KeyObject, String>)| {
        spent = spent.saturating_add(cost(key));
        spent <= MAX_TOTAL_WORK
    };
    let count = keys.iter().map_while(|key| within(key).then_some(())).count().max(1).min(keys.len());
    let too_costly = keys.split_off(count).len();
    (keys, too_costly)
}

/// The key that the password opens, and the master key in it. Of several it is the one whose master key `fits`; one that does not is
/// better than none.
pub async fn open(store: &Store, password: &Password, fits: impl Fn(&MasterKey) -> bool) -> Result<(Id, MasterKey), RepositoryError> {
    let mut unfit = None;
    let mut broken = None;
    let (keys, too_costly) = affordable(list(store).await?);
    if too_costly > 0 {
        tracing::warn!(keys = too_costly, "keys that would take too long to try are passed over");
    }
    for (id, key) in keys {
        match key.and_then(|key| key.open(password)) {
            Ok(Some(master)) if fits(&master) => return Ok((id, master)),
            Ok(Some(master)) => {
                unfit.get_or_insert((id, master));
            }
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(%id, reason, "a key cannot be used");
                broken = Some(RepositoryError::closed(format!("key {id}"), reason));
            }
        }
    }
    unfit.ok_or_else(|| broken.unwrap_or_else(|| RepositoryError::WrongPassword { location: store.location().to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_opens_with_its_password_and_with_no_other() {
        let master = MasterKey::random().unwrap();
        let store = Store::memory();
        let password = Password::generate().unwrap();
        let id = save(&store, &KeyObject::new(&master, &password, KeyOrigin::default()).unwrap()).await.unwrap();
        let (opened, key) = open(&store, &password, |_| true).await.unwrap();
        assert_eq!(opened, id);
        assert_eq!(*key.to_bytes(), *master.to_bytes());
        let wrong = Password::generate().unwrap();
        assert!(matches!(open(&store, &wrong, |_| true).await, Err(RepositoryError::WrongPassword { .. })));
    }

    #[tokio::test]
    async fn a_key_that_is_replaced_while_keys_are_read_is_no_failure() {
        use crate::store::Patience;
        use crate::store::fault::{Fault, Faulty, Gate, Kind};
        let (faulty, gate) = (Faulty::memory(|_, _| None), Gate::default());
        let (store, master) = (faulty.store(Patience::local()), MasterKey::random().unwrap());
        let new_key = || {
            let password = Password::generate().unwrap();
            let object = KeyObject::new(&master, &password, KeyOrigin::default()).unwrap();
            (password, object)
        };
        let ((_, old), (password, new)) = (new_key(), new_key());
        let old = format!("{FOLDER}/{}", save(&store, &old).await.unwrap());
        let (going, held) = (old.clone(), gate.clone());
        faulty.obey(move |_, call| (call.kind == Kind::Get && call.key == going).then(|| Fault::Held(held.clone())));
        let replace = async {
            gate.reached().await;
            let id = save(&store, &new).await.unwrap();
            store.delete(std::slice::from_ref(&old)).await.unwrap();
            gate.open();
            id
        };
        let (opened, id) = tokio::join!(open(&store, &password, |_| true), replace);
        assert_eq!(opened.unwrap().0, id);
    }

    #[test]
    fn planted_keys_come_after_those_of_users_and_cost_bounded_work() {
        let master = MasterKey::random().unwrap();
        let password = Password::generate().unwrap();
        let good = KeyObject::new(&master, &password, KeyOrigin::default()).unwrap();
        let planted = KeyObject { n: 1 << 17, r: 8, p: 32, ..good.clone() };
        let mut keys: Vec<_> = (0..100).map(|number| (Id([number; 32]), Ok(planted.clone()))).collect();
        keys.push((Id([200; 32]), Ok(good)));
        keys.push((Id([201; 32]), Err("damaged".to_owned())));
        let (tried, too_costly) = affordable(keys);
        assert_eq!(tried.iter().take(2).map(|(id, _)| id.0[0]).collect::<Vec<_>>(), [201, 200]);
        assert!(tried.iter().map(|(_, key)| key.as_ref().map_or(0, KeyObject::work)).sum::<u64>() <= MAX_TOTAL_WORK);
        assert_eq!(tried.len() + too_costly, 102);
    }

    #[test]
    fn scrypt_parameters_that_would_eat_the_machine_are_refused() {
        let master = MasterKey::random().unwrap();
        let password = Password::generate().unwrap();
        let good = KeyObject::new(&master, &password, KeyOrigin::default()).unwrap();
        for (n, r, p) in [(1 << 40, 8, 1), (1 << 15, u32::MAX, 1), (3, 8, 1), (0, 8, 1), (1 << 10, 8, u32::MAX), (1024, 0, 1)] {
            assert!(KeyObject { n, r, p, ..good.clone() }.open(&password).is_err(), "N={n} r={r} p={p}");
        }
    }
}
