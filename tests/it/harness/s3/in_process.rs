//! s3s-fs in this process: a third reading of S3's manual. It lets several racing creates win.

use std::sync::OnceLock;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;

use super::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, guard, keep, scratch};

/// The server, on a thread and a runtime of its own, so that it outlives the test that started it.
pub async fn s3s_fs() -> S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    SERVER.get_or_init(start).clone()
}

fn start() -> S3Server {
    let folder = scratch();
    keep(guard(&folder, &["true".to_owned()]));
    std::fs::create_dir(folder.join(BUCKET)).expect("the bucket is a folder");
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&folder).expect("the folder is there"));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = service.build();
    let (send, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
            send.send(socket.local_addr().expect("it is bound").port()).expect("somebody waits");
            serve(socket, service).await;
        });
    });
    S3Server::at(port.recv().expect("the server starts"))
}

async fn serve(socket: TcpListener, service: S3Service) {
    while let Ok((connection, _)) = socket.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            // A connection that a test breaks is no failure of the server.
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
