//! Repositories made by hand, object by object, that hold what no writer of ours would put. Needs nothing of the other helpers, since the
//! fuzz targets use it too.

use keepset::model::id::Id;
use keepset::repository::Repository;
use keepset::repository::codec::{Encoder, id_of};
use keepset::repository::config;
use keepset::repository::config::Config;
use keepset::repository::crypto::MasterKey;
use keepset::repository::index;
use keepset::repository::key::{self, KeyObject, KeyOrigin, Password};
use keepset::repository::pack::{self, BlobKind, PackEntry};
use keepset::repository::snapshot;
use keepset::repository::snapshot::Snapshot;
use keepset::store::Store;

/// A repository, and the blobs that are not in a pack of it yet.
pub struct Crafted {
    pub repository: Repository,
    encoder: Encoder,
    waiting: [(Vec<u8>, Vec<PackEntry>); 2],
    /// Packs that no index object names yet.
    unindexed: Vec<(Id, Vec<PackEntry>)>,
}

impl Crafted {
    /// In an empty store, sealed with a key that is no secret.
    pub async fn new(store: Store) -> Crafted {
        let master = MasterKey::from_bytes(&[7; 64]);
        let config = serde_json::to_vec(&Config::random().unwrap()).unwrap();
        store.put_new(config::KEY, master.cipher().seal(&config).unwrap().into()).await.unwrap();
        let encoder = Encoder::new(&master, 1).unwrap();
        let repository = Repository::with_key(store, master).await.unwrap();
        Crafted { repository, encoder, waiting: Default::default(), unindexed: Vec::new() }
    }

    /// Lets a password open it.
    pub async fn with_password(self, password: &Password) -> Crafted {
        let object = KeyObject::new(self.repository.master_key(), password, KeyOrigin::default()).unwrap();
        key::save(self.repository.store(), &object).await.unwrap();
        self
    }

    /// Adds a blob and gives its id.
    pub fn add(&mut self, kind: BlobKind, plain: &[u8]) -> Id {
        let id = id_of(plain);
        let (encoded, sealed) = self.encoder.encode(plain).unwrap();
        let (body, entries) = &mut self.waiting[kind as usize];
        let offset = u32::try_from(body.len()).unwrap();
        body.extend_from_slice(sealed);
        entries.push(PackEntry { id, kind, offset, length: encoded.length, plain_length: encoded.plain_length });
        id
    }

    pub fn data(&mut self, plain: &[u8]) -> Id {
        self.add(BlobKind::Data, plain)
    }

    pub fn tree(&mut self, json: &str) -> Id {
        self.add(BlobKind::Tree, json.as_bytes())
    }

    /// Adds bytes that are sealed as they are, under any id and with any claim about what they unpack to.
    pub fn add_as(&mut self, kind: BlobKind, id: Id, inside: &[u8], plain_length: Option<u32>) {
        let sealed = self.repository.master_key().cipher().seal(inside).unwrap();
        let (body, entries) = &mut self.waiting[kind as usize];
        let offset = u32::try_from(body.len()).unwrap();
        let length = u32::try_from(sealed.len()).unwrap();
        body.extend_from_slice(&sealed);
        entries.push(PackEntry { id, kind, offset, length, plain_length });
    }

    /// Closes the packs that are open; no index object names them before [`Crafted::index`].
    pub async fn pack(&mut self) -> Vec<Id> {
        let mut packs = Vec::new();
        for (mut body, entries) in std::mem::take(&mut self.waiting) {
            if entries.is_empty() {
                continue;
            }
            body.extend(pack::encode_header(&entries, &self.repository.master_key().cipher()).unwrap());
            let id = id_of(&body);
            self.repository.store().put_new(&pack::key(&id), body.into()).await.unwrap();
            self.unindexed.push((id, entries));
            packs.push(id);
        }
        packs
    }

    /// Closes the packs that are open, and puts an index object for all that none names yet.
    pub async fn index(&mut self) -> Id {
        self.pack().await;
        let packs = std::mem::take(&mut self.unindexed);
        self.repository.put_sealed(index::FOLDER, &index::encode(&packs)).await.unwrap()
    }

    /// A snapshot that passes for a point of set `shop/web` in cluster `here`, made so many minutes past three.
    pub async fn snapshot(&self, tree: Id, minute: u32) -> Id {
        let snapshot = Snapshot {
            time: format!("2026-01-02T03:{minute:02}:05Z"),
            tree: Some(tree),
            paths: vec!["/shop/web".into()],
            hostname: "web.shop.here".into(),
            ..Snapshot::default()
        };
        snapshot::save(&self.repository, &snapshot).await.unwrap()
    }

    /// The root tree of a point: the set's folder with a manifest of these bytes and claims of these names and trees.
    pub fn root(&mut self, manifest: &[u8], claims: &[(&str, Id)]) -> Id {
        let content = self.data(manifest);
        let mut nodes: Vec<String> = claims.iter().map(|(name, tree)| dir(name, tree)).collect();
        nodes.push(file("manifest.json", &[content], manifest.len() as u64));
        let set = self.tree(&nodes_of(&nodes));
        let namespace = self.tree(&nodes_of(&[dir("web", &set)]));
        self.tree(&nodes_of(&[dir("shop", &namespace)]))
    }
}

/// A tree of these nodes, in any order.
pub fn nodes_of(nodes: &[String]) -> String {
    format!("{{\"nodes\":[{}]}}\n", nodes.join(","))
}

/// A folder's node. Names are JSON already, without the quotes.
pub fn dir(name: &str, tree: &Id) -> String {
    format!(r#"{{"name":"{name}","type":"dir","mode":2147484141,"subtree":"{tree}"}}"#)
}

pub fn file(name: &str, content: &[Id], size: u64) -> String {
    let ids: Vec<String> = content.iter().map(|id| format!("\"{id}\"")).collect();
    format!(r#"{{"name":"{name}","type":"file","mode":420,"size":{size},"content":[{}]}}"#, ids.join(","))
}

/// A manifest of set `shop/web` with claims of template `data`: ordinal and tree.
pub fn manifest(claims: &[(u32, Id)]) -> String {
    let claims: Vec<String> = claims
        .iter()
        .map(|(ordinal, tree)| {
            format!(
                r#"{{"ordinal":{ordinal},"template":"data","name":"data-web-{ordinal}","status":"saved","tree":"{tree}","files":3,"dirs":1,"bytes":10,"consistency":"fuzzy","changeDetection":"metadata"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version":1,"run":"r","kind":"normal","started":"2026-01-02T03:04:05Z","set":{{"cluster":"here","namespace":"shop","name":"web","start":0,"replicas":2,"templates":["data"]}},"claims":[{}]}}"#,
        claims.join(",")
    )
}
