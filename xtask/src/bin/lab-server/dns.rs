//! The lab's name server: a world in which only `example.com` exists.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record};
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

const TTL: u32 = 60;
const IDLE_TCP_CLIENT_GOES_AFTER: Duration = Duration::from_secs(10);
const RESPONSES_BUFFERED: usize = 16;

/// Answers on `address` that the web server is at `web`.
pub(crate) async fn listen(address: SocketAddr, web: IpAddr) -> Result<Server<Catalog>> {
    let mut server = Server::new(catalog(web)?);
    let failed = || format!("the name server cannot listen on {address}");
    server.register_socket(UdpSocket::bind(address).await.with_context(failed)?);
    let listener = TcpListener::bind(address).await.with_context(failed)?;
    server.register_listener(listener, IDLE_TCP_CLIENT_GOES_AFTER, RESPONSES_BUFFERED);
    Ok(server)
}

/// One zone, the root itself: so every other name gets an authoritative NXDOMAIN, as from the real root.
fn catalog(web: IpAddr) -> Result<Catalog> {
    let root = Name::root();
    let mut zone = InMemoryZoneHandler::<hickory_server::net::runtime::TokioRuntimeProvider>::empty(
        root.clone(),
        ZoneType::Primary,
        AxfrPolicy::Deny,
    );
    let soa = SOA::new(Name::from_ascii("ns.example.com.")?, root.clone(), 1, 3600, 600, 86400, TTL);
    zone.upsert_mut(Record::from_rdata(root.clone(), TTL, RData::SOA(soa)), 1);
    if let IpAddr::V4(web) = web {
        for name in ["example.com.", "web.example.com."] {
            zone.upsert_mut(Record::from_rdata(Name::from_ascii(name)?, TTL, RData::A(A(web))), 1);
        }
    }
    let alias = RData::CNAME(CNAME(Name::from_ascii("example.com.")?));
    zone.upsert_mut(Record::from_rdata(Name::from_ascii("www.example.com.")?, TTL, alias), 1);

    let mut catalog = Catalog::new();
    catalog.upsert(root.into(), vec![Arc::new(zone)]);
    Ok(catalog)
}
