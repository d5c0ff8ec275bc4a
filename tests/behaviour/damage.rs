//! One damaged collection keeps nobody else from being served.

use distilface::proto;
use tonic::Code;

use crate::harness::{Server, assert_refused, by_text, doc, eventually, http_get, ids};

/// What needs a new file in the folder is refused with what to do, what is in memory or open is answered, and nothing that
/// was acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_is_moved_away_is_said_so_and_loses_nothing() {
    let mut server = Server::with_collection().await;
    server.create("d").await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    let (here, there) = (server.config.data.dir.clone(), server.config.data.dir.with_extension("moved"));
    std::fs::rename(&here, &there).unwrap();

    let words = ["no longer there", here.to_str().unwrap(), "put the folder back"];
    let config = Some(proto::CollectionConfig { name: "e".into(), ..Default::default() });
    let request = proto::CreateCollectionRequest { config, if_not_exists: false };
    assert_refused(server.collections.create(request).await, Code::FailedPrecondition, &words);
    let request = proto::SetAliasRequest { alias: "now".into(), collection: "c".into() };
    assert_refused(server.collections.set_alias(request).await, Code::FailedPrecondition, &words);
    let request = proto::DeleteCollectionRequest { name: "d".into() };
    assert_refused(server.collections.delete(request).await, Code::FailedPrecondition, &words);
    // The log is open, and what is written to it goes where the folder went.
    server.upsert("c", vec![doc("2", "a dog")]).await;
    assert_eq!(ids(&server.find(by_text("c", "a cat", 1)).await), ["1"]);
    assert_eq!(server.ids("c").await, ["1", "2"]);
    eventually("it is not healthy", async || {
        let health = http_get(server.running().metrics_address.unwrap(), "/healthz").await;
        health.starts_with("HTTP/1.1 503")
    })
    .await;

    server.stop().await;
    let _ = std::fs::remove_dir_all(&here);
    std::fs::rename(&there, &here).unwrap();
    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(server.ids("c").await, ["1", "2"]);
    assert_eq!(server.ids("d").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_collection_is_refused_by_name_and_the_others_serve() {
    let mut server = Server::with_collection().await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    let config = Some(proto::CollectionConfig { name: "hurt".into(), ..Default::default() });
    server.collections.create(proto::CreateCollectionRequest { config, if_not_exists: false }).await.unwrap();
    server.upsert("hurt", vec![doc("1", "a dog")]).await;
    server.stop().await;
    // The newest folder is the second collection's.
    let folders = server.config.data.dir.join("collections");
    let mut names: Vec<_> = std::fs::read_dir(&folders).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let hurt = names.last().unwrap().clone();
    std::fs::write(hurt.join("segments"), "not a manifest").unwrap();

    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(ids(&server.find(by_text("c", "a cat", 1)).await), ["1"]);
    let place = hurt.display().to_string();
    let words = ["\"hurt\" is damaged", place.as_str(), "backup", "delete the collection"];
    assert_refused(server.search.search(by_text("hurt", "a dog", 1)).await, Code::DataLoss, &words);
    let upsert = proto::UpsertRequest {
        collection: "hurt".into(),
        documents: vec![doc("2", "a dog")],
        ..Default::default()
    };
    assert_refused(server.documents.upsert(upsert).await, Code::DataLoss, &words);
    let stats = proto::CollectionStatsRequest { name: "hurt".into(), ..Default::default() };
    assert_refused(server.collections.stats(stats).await, Code::DataLoss, &words);
    let list = server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner();
    let damage: Vec<&str> = list.collections.iter().map(|c| c.damage.as_str()).collect();
    assert_eq!(damage[0], "");
    assert!(damage[1].contains(&place), "{damage:?}");
    server.metrics_have("distilface_collections_damaged 1").await;
    server.metrics_have("distilface_healthy 1").await;
    let health = http_get(server.running().metrics_address.unwrap(), "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"hurt\" is not served"), "{health}");

    server.collections.delete(proto::DeleteCollectionRequest { name: "hurt".into() }).await.unwrap();
    assert!(!hurt.exists());
    server.metrics_have("distilface_collections_damaged 0").await;
}
