//! An HTTP client in tower's layers, over our stack: every attempt has a time limit, and one that fails is repeated.
//!
//! `tower_client INTERFACE ADDRESS URL`: ADDRESS is the one to claim (or `auto`). The page is written to stdout.

use std::{future::Future, io::Write, pin::Pin, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use stack_user::api::{Resolver, Stack, connectors::hyper::Connector};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::Policy};

const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: tower_client INTERFACE ADDRESS URL");
    let (interface, address, url) = (next()?, next()?.parse()?, next()?);

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let connector = Connector::new(Resolver::new(&stack, &[])?);
    let mut client = ServiceBuilder::new()
        .retry(Repeat { left: ATTEMPTS - 1 })
        .timeout(ATTEMPT_TIMEOUT)
        .service(Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector));

    let request = Request::get(&url).body(Empty::new())?;
    let ready = client.ready().await.map_err(|error| anyhow!(error))?;
    let response = ready.call(request).await.map_err(|error| anyhow!(error).context(url.clone()))?;
    ensure!(response.status().is_success(), "{url}: {}", response.status());
    let page = response.into_body().collect().await?.to_bytes();
    std::io::stdout().write_all(&page)?;
    Ok(())
}

/// Repeats what failed, and what the server could not do just now.
#[derive(Clone)]
struct Repeat {
    left: usize,
}

impl<Body> Policy<Request<Empty<Bytes>>, Response<Body>, BoxError> for Repeat {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _request: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let reason = match result {
            Ok(response) if response.status().is_server_error() => response.status().to_string(),
            Ok(_) => return None,
            Err(error) => error.to_string(),
        };
        self.left = self.left.checked_sub(1)?;
        eprintln!("{reason}; once more in {PAUSE:?}");
        Some(Box::pin(tokio::time::sleep(PAUSE)))
    }

    fn clone_request(&mut self, request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request.clone())
    }
}
