//! A real MinIO with copies of one small repository, and the real program with a proxy between.

use std::fs;
use std::sync::Arc;

use keepset::model::id::Id;
use keepset::store::{Patience, Store};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::house::House;
use super::keepset::Keepset;
use super::minio::Minio;
use super::proxy::Proxy;
use super::restic::Restic;

/// A set with two points and changes since, its repository in memory to be copied from, and the program with a proxy before its store.
pub struct Bucket {
    pub house: House,
    pub base: InMemory,
    pub minio: &'static Minio,
    pub proxy: Proxy,
    pub runtime: Runtime,
    prefix: String,
}

impl Bucket {
    pub fn new(prefix: &str) -> Bucket {
        let runtime = Runtime::new().unwrap();
        let (house, base) = runtime.block_on(House::with_two_points());
        let minio = Minio::shared();
        Bucket { house, base, minio, proxy: Proxy::before(minio), runtime, prefix: prefix.to_owned() }
    }

    /// The store without the proxy.
    pub fn store(&self, name: &str) -> Store {
        Store::open(&self.minio.location(&format!("{}/{name}", self.prefix)).parse().unwrap(), &self.minio.variables()).unwrap()
    }

    /// The repository as it was at first, under a name of its own.
    pub fn copy(&self, name: &str) -> Store {
        use futures::TryStreamExt;
        let store = self.store(name);
        self.runtime.block_on(async {
            let listed: Vec<_> = self.base.list(None).try_collect().await.unwrap();
            for meta in listed {
                let body = self.base.get(&meta.location).await.unwrap().bytes().await.unwrap();
                store.put_new(meta.location.as_ref(), body).await.unwrap();
            }
        });
        store
    }

    /// The store that the proxy lets be seen.
    pub fn proxied(&self, name: &str) -> Store {
        let location = self.proxy.location(self.minio, &format!("{}/{name}", self.prefix));
        Store::open(&location.parse().unwrap(), &self.minio.variables()).unwrap()
    }

    /// The program, with the store that the proxy lets it see.
    pub fn keepset(&self, name: &str) -> Keepset {
        self.program(&self.proxy.location(self.minio, &format!("{}/{name}", self.prefix)))
    }

    /// The program with the store itself, for one that works beside another.
    pub fn beside(&self, name: &str) -> Keepset {
        self.program(&self.minio.location(&format!("{}/{name}", self.prefix)))
    }

    /// The same with the store through another proxy, which decides by itself.
    pub fn beside_through(&self, proxy: &Proxy, name: &str) -> Keepset {
        self.program(&proxy.location(self.minio, &format!("{}/{name}", self.prefix)))
    }

    fn program(&self, location: &str) -> Keepset {
        let mut keepset = Keepset::bare().at(location);
        for (name, value) in self.minio.variables() {
            keepset = keepset.with(&name, &value);
        }
        fs::write(keepset.path("settings.yaml"), "cluster: here\n").unwrap();
        fs::write(keepset.path("password"), self.house.password.reveal()).unwrap();
        keepset
    }

    pub fn backup_args(&self) -> Vec<String> {
        ["backup", "shop/web", "--wait-lock", "0s", "--from"].map(str::to_owned).into_iter().chain([self.live()]).collect()
    }

    pub fn live(&self) -> String {
        self.house.live().to_str().unwrap().to_owned()
    }

    /// How many points there are that are not known; all are proven.
    pub fn prove(&self, store: &Store, gone: &[Id], about: &str) -> usize {
        self.runtime.block_on(self.house.prove(store, gone, about)).len()
    }

    /// Proves the points that are not known yet and remembers them as what the volumes hold now. How many there were.
    pub fn keep_new(&mut self, store: &Store, about: &str) -> usize {
        let points = self.runtime.block_on(self.house.points(store)).unwrap().points;
        let new: Vec<Id> = points.iter().map(|point| point.point.id).filter(|id| !self.house.kept.contains_key(id)).collect();
        for id in &new {
            self.runtime.block_on(self.house.prove_point(store, id, about));
            self.house.keep(*id);
        }
        new.len()
    }

    /// The older and the newer of the two points.
    pub fn ages(&self) -> (Id, Id) {
        let memory = Store::from_object_store(Arc::new(self.base.fork()), "memory", Patience::local());
        let points = self.runtime.block_on(self.house.points(&memory)).unwrap().points;
        (points[0].point.id, points[1].point.id)
    }

    /// Stock restic with the store itself.
    pub fn restic(&self, name: &str) -> Restic {
        self.restic_at(self.minio.location(&format!("{}/{name}", self.prefix)))
    }

    /// The same with the store that the proxy lets it see.
    pub fn proxied_restic(&self, name: &str) -> Restic {
        self.restic_at(self.proxy.location(self.minio, &format!("{}/{name}", self.prefix)))
    }

    fn restic_at(&self, location: String) -> Restic {
        Restic::new(location, std::str::from_utf8(self.house.password.reveal()).unwrap()).with_variables(self.minio.variables())
    }
}
