//! Addresses that were lost to another host that insists on them, and are claimed again.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio_util::task::AbortOnDropHandle;

use super::config::Config;
use crate::{
    api::{AddressChoice, Stack},
    cli::console::Diagnostics,
    stack::AddressEvent,
};

/// How long after a loss, and after each refusal, an address is claimed again: the RATE_LIMIT_INTERVAL of RFC 5227 §1.1, so
/// that a host that keeps it is not asked more often than that allows.
const CLAIMED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is being done about each address that was lost.
#[derive(Debug, Default)]
pub(super) struct Lost(HashMap<IpAddr, AbortOnDropHandle<()>>);

impl Lost {
    /// Looks for addresses that were lost since the last look, and begins to claim them again. Returns whether there is no
    /// address left. Must be called within a tokio runtime.
    pub(super) fn look(&mut self, stacks: &[Stack], config: &Config, tell: &Diagnostics) -> bool {
        self.0.retain(|_, claiming| !claiming.is_finished());
        for stack in stacks {
            for (address, state) in stack.address_states() {
                if let AddressEvent::Lost { mac } = state
                    && !self.0.contains_key(&address)
                {
                    tell.line(&format!(
                        "xstack: error: {address} is lost to {mac}, which insists on it; it is claimed again every {} s",
                        CLAIMED_AGAIN_AFTER.as_secs()
                    ));
                    let claiming = claim_again(stack.clone(), choice(config, address), tell.clone());
                    self.0.insert(address, AbortOnDropHandle::new(tokio::spawn(claiming)));
                }
            }
        }
        !self.0.is_empty() && stacks.iter().all(|stack| stack.addresses().is_empty())
    }

    /// Nobody wants an address any more.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.0.remove(&address);
    }
}

/// Claims an address until it is ours.
async fn claim_again(stack: Stack, choice: AddressChoice, tell: Diagnostics) {
    loop {
        tokio::time::sleep(CLAIMED_AGAIN_AFTER).await;
        match stack.claim(choice).await {
            Ok(address) => return tell.line(&format!("xstack: {address} is ours again")),
            Err(error) => tracing::info!("{error}"),
        }
    }
}

/// How an address is to be claimed: as the configuration has it, if it does.
fn choice(config: &Config, lost: IpAddr) -> AddressChoice {
    let mut named =
        config.networks.iter().flat_map(|network| &network.addresses).map(|text| text.get_ref().0);
    let is_lost = |choice: &AddressChoice| matches!(choice, AddressChoice::Given { address, .. } if IpAddr::V4(*address) == lost);
    let unnamed = match lost {
        IpAddr::V4(address) => AddressChoice::Given { address, prefix_len: None },
        IpAddr::V6(_) => AddressChoice::Auto,
    };
    named.find(is_lost).unwrap_or(unnamed)
}
