//! The same of a MongoDB: killed at each point of a dump, of following its log, and of a restore.

mod dump;
mod follow;
mod restore;

use mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};

use crate::faults::noise;
use crate::harness::mongodb::MongoServer;

/// Documents of 1 MiB that nothing compresses, and a small collection with an index.
async fn filled(blobs: usize) -> MongoServer {
    let server = MongoServer::start(&[]).await;
    let db = server.client().await.database("shop");
    let bytes = noise(blobs << 20);
    for (n, part) in bytes.chunks(1 << 20).enumerate() {
        let blob = Binary { subtype: BinarySubtype::Generic, bytes: part.to_vec() };
        db.collection("blobs")
            .insert_one(doc! { "_id": n as i32, "blob": blob })
            .await
            .expect("it is inserted");
    }
    let orders = (0..200).map(|n| doc! { "_id": n, "n": n * 7 });
    db.collection::<Document>("orders").insert_many(orders).await.expect("they are inserted");
    let indexes = doc! { "createIndexes": "orders", "indexes": [{ "key": { "n": 1 }, "name": "by_n" }] };
    server.command("shop", indexes).await;
    server
}
