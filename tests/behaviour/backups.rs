//! Backups by name, made and restored while the server goes on.

use std::{path::PathBuf, time::Duration};

use distilface::{
    proto::{self, value::Kind},
    rpc::backups_client::BackupsClient,
};
use tonic::{Code, Request, transport::Channel};

use crate::harness::{
    Server, assert_refused, by_text, doc, eventually, expression, ids, list, string, with_payload,
};

fn backups(server: &Server) -> BackupsClient<Channel> {
    BackupsClient::new(server.channel.clone())
}

fn folder(server: &Server) -> PathBuf {
    server.config.data.dir.with_file_name("backups")
}

async fn start() -> Server {
    Server::start_with(|config| config.data.backups = config.data.dir.with_file_name("backups")).await
}

fn create(name: &str) -> proto::CreateBackupRequest {
    proto::CreateBackupRequest { name: name.into(), ..Default::default() }
}

fn restore(name: &str, collection: &str, rename: &str) -> proto::RestoreBackupRequest {
    let (name, collection, rename) = (name.into(), collection.into(), rename.into());
    proto::RestoreBackupRequest { name, collection, rename, aliases: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_what_was_there_and_is_restored_under_another_name() {
    let mut server = start().await;
    server.create("c").await;
    server.create("d").await;
    let documents: Vec<_> = (0..30)
        .map(|n| {
            let fields = [
                ("n", Kind::Integer(n)),
                ("tags", list(&[string("a"), string(if n % 2 == 0 { "b" } else { "c" })])),
            ];
            with_payload(doc(format!("{n:02}"), format!("the cat {n} sat on the mat. ").repeat(20)), &fields)
        })
        .collect();
    server.upsert("c", documents).await;
    let alias = proto::SetAliasRequest { alias: "live".into(), collection: "c".into() };
    server.collections.set_alias(alias).await.unwrap();
    let query = proto::SearchRequest { filter: expression("n < 20"), ..by_text("c", "the cat 12 sat", 10) };
    let found = server.find(query.clone()).await;

    let made = backups(&server).create(create("monday")).await.unwrap().into_inner();
    let backup = made.backup.unwrap();
    assert_eq!((&*backup.name, backup.collections.len()), ("monday", 2));
    assert_eq!(
        (backup.collections[0].documents, &*backup.collections[0].aliases),
        (30, &["live".into()][..])
    );
    assert_eq!(backup.folder, folder(&server).join("monday").to_str().unwrap());
    assert_eq!(made.linked_bytes + made.copied_bytes, backup.bytes);
    let listed = backups(&server).list(proto::ListBackupsRequest {}).await.unwrap().into_inner().backups;
    assert_eq!(listed, [backup]);

    // Whatever happens after it.
    server.upsert("c", vec![doc("05", "a dog"), doc("new", "a bird")]).await;
    let answer = backups(&server).restore(restore("monday", "c", "then")).await.unwrap().into_inner();
    let [restored] = &answer.collections[..] else { panic!("{answer:?}") };
    assert_eq!((&*restored.source, restored.documents), ("c", 30));
    assert_eq!((&*restored.aliases_left, &*restored.missing_model), (&["live".into()][..], ""));
    let config = restored.collection.as_ref().unwrap().config.as_ref().unwrap();
    assert_eq!(config.name, "then");
    let of_then = proto::SearchRequest { collection: "then".into(), ..query.clone() };
    assert_eq!(server.find(of_then.clone()).await, found);
    assert_eq!((server.count("then").await, server.count("c").await), (30, 31));
    // It lives on its own: a document that is as it was is not encoded again, and a new one is found.
    let before = server.ids("then").await;
    server.upsert("then", vec![doc("x", "an elephant in the rain")]).await;
    assert_eq!(ids(&server.find(by_text("then", "an elephant in the rain", 1)).await), ["x"]);
    let delete = proto::DeleteDocumentsRequest {
        collection: "then".into(),
        ids: vec!["x".into()],
        ..Default::default()
    };
    server.documents.delete(delete).await.unwrap();
    let mut server = server.restart_with(|_| ()).await;
    assert_eq!(server.ids("then").await, before);
    assert_eq!(server.find(of_then).await, found);
    server.metrics_have("distilface_collections_damaged 0").await;

    // All of it, with the aliases, where nothing is.
    for name in ["c", "d"] {
        server.collections.delete(proto::DeleteCollectionRequest { name: name.into() }).await.unwrap();
    }
    let all = proto::RestoreBackupRequest { aliases: true, ..restore("monday", "", "") };
    let answer = backups(&server).restore(all.clone()).await.unwrap().into_inner();
    let aliases: Vec<_> =
        answer.collections.iter().map(|c| c.collection.as_ref().unwrap().aliases.clone()).collect();
    assert_eq!(aliases, [vec!["live".to_owned()], vec![]]);
    let of_live = proto::SearchRequest { collection: "live".into(), ..query };
    assert_eq!(server.find(of_live).await, found);
    assert_refused(backups(&server).restore(all).await, Code::AlreadyExists, &["\"c\" exists"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_names_no_place_on_the_servers_machine_and_reads_no_other_folder() {
    let mut server = start().await;
    server.create("c").await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    for name in ["../backups", "/tmp/backup", "..", ".hidden", "a/b", "a\\b", ""] {
        let words = ["backup name", "is not allowed"];
        assert_refused(backups(&server).create(create(name)).await, Code::InvalidArgument, &words);
        let asked = backups(&server).restore(restore(name, "c", "x")).await;
        assert_refused(asked, Code::InvalidArgument, &words);
    }
    assert!(!folder(&server).exists(), "nothing is made");
    let asked = backups(&server).restore(restore("none", "c", "x")).await;
    assert_refused(asked, Code::NotFound, &["no backup \"none\"", "none yet"]);
    backups(&server).create(create("one")).await.unwrap();
    assert_refused(backups(&server).create(create("one")).await, Code::AlreadyExists, &["there already"]);
    let unknown = proto::CreateBackupRequest { collections: vec!["nobody".into()], ..create("two") };
    assert_refused(backups(&server).create(unknown).await, Code::NotFound, &["nobody"]);
    let asked = backups(&server).restore(restore("one", "nobody", "x")).await;
    assert_refused(asked, Code::NotFound, &["nobody", "there are: c"]);

    // What is damaged is named, and nobody sees a part of it.
    let kept = std::fs::read_dir(folder(&server).join("one")).unwrap().map(|e| e.unwrap().path());
    let kept = kept.into_iter().find(|path| path.is_dir()).unwrap();
    let file = kept.join("0000000001/0.vectors");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let words = ["the backup", "is damaged", file.to_str().unwrap()];
    assert_refused(backups(&server).restore(restore("one", "c", "x")).await, Code::DataLoss, &words);
    std::fs::write(folder(&server).join("one/backup"), "no list").unwrap();
    let listed = backups(&server).list(proto::ListBackupsRequest {}).await.unwrap().into_inner().backups;
    assert!(listed[0].damage.contains("is damaged") && listed[0].made_at.is_none(), "{listed:?}");
    let found = server.collections.list(proto::ListCollectionsRequest {}).await.unwrap().into_inner();
    assert_eq!(found.collections.len(), 1);

    let server = server.restart_with(|config| config.data.backups = PathBuf::new()).await;
    let words = ["data.backups"];
    assert_refused(backups(&server).create(create("x")).await, Code::FailedPrecondition, &words);
    assert_refused(backups(&server).restore(restore("one", "", "")).await, Code::FailedPrecondition, &words);
    let asked = backups(&server).list(proto::ListBackupsRequest {}).await;
    assert_refused(asked, Code::FailedPrecondition, &words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_as_long_as_its_client_waits_and_no_longer() {
    let mut server = start().await;
    server.create("c").await;
    let text = |n| format!("word{n} ").repeat(400);
    server.upsert("c", (0..100).map(|n| doc(n, text(n))).collect()).await;
    // Too short for any other call, and nothing to this one.
    let server = server.restart_with(|config| config.server.request_timeout = Duration::from_millis(1)).await;
    let copy = |name| proto::CreateBackupRequest { copy: true, ..create(name) };
    let made = backups(&server).create(copy("one")).await.unwrap().into_inner();
    assert_eq!(made.linked_bytes, 0);
    backups(&server).restore(restore("one", "c", "x")).await.unwrap();
    let mut hurried = Request::new(copy("two"));
    hurried.set_timeout(Duration::from_millis(1));
    // Whose patience ends first, the server's or the client's own, is not to be foreseen.
    let refused = backups(&server).create(hurried).await.unwrap_err();
    assert!(
        refused.code() == Code::DeadlineExceeded && refused.message().contains("deadline")
            || refused.code() == Code::Cancelled && refused.message().contains("Timeout expired"),
        "{refused:?}"
    );
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(folder(&server)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    eventually("what nobody waits for is removed", async || names() == ["one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_whose_model_is_not_here_is_restored_and_told_so() {
    let mut server = start().await;
    server.create("c").await;
    server.upsert("c", vec![doc("1", "a cat")]).await;
    backups(&server).create(create("one")).await.unwrap();
    let mut server = server.restart_with(|config| config.encoder.model = "none".into()).await;
    let answer = backups(&server).restore(restore("one", "c", "x")).await.unwrap().into_inner();
    let told = &answer.collections[0].missing_model;
    let fingerprint = &answer.collections[0].collection.as_ref().unwrap().model_fingerprint[..12];
    assert!(told.contains(fingerprint) && told.contains("install it again"), "{told}");
    assert_eq!(server.ids("x").await, ["1"]);
    // With the model it is searched as ever.
    let model = crate::harness::tiny().to_str().unwrap().to_owned();
    let mut server = server.restart_with(|config| config.encoder.model = model).await;
    assert_eq!(ids(&server.find(by_text("x", "a cat", 1)).await), ["1"]);
}
