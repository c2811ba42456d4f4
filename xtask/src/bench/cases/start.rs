//! From nothing to the first byte of a page.

use super::http::NGINX;
use super::{Mode, ours_to_kernel, xstack_left};
use crate::bench::case::{Case, Content, Entry, Plan, Process, Read, Ready, Scene, Teller};
use crate::bench::metric::FIRST_BYTE;
use crate::bench::network::{INTERFACE, address};
use crate::bench::target::{At, Target};

const ALONE: &str = "xstack curl";
const BY_DAEMON: &str = "xstack curl through a daemon";

pub(super) fn cases(_plan: &Plan) -> Vec<Case> {
    let url = format!("http://{}/page.txt", address::KERNEL_RIGHT);
    let alone = scene(Process::left(xstack_left(Mode::Sleeping, &format!("curl {url}"))));
    let mut by_daemon = scene(Process::left(format!(
        "{{xstack}} curl --daemon --control-socket {{directory}}/control.sock {url}"
    )));
    by_daemon.files.push(("xstack.toml", Content::Text(configuration())));
    let daemon = Process::left("{xstack} daemon {directory}/xstack.toml");
    by_daemon.background.push(daemon.once(Ready::Says("control socket")));
    vec![Case {
        name: "start",
        about: "A page of nginx on the same link: from the start of the program to the first byte that it prints.".to_owned(),
        entries: vec![
            Entry::scene(ALONE, alone),
            Entry::scene(BY_DAEMON, by_daemon),
            Entry::scene("curl, over the kernel", scene(Process::left(format!("curl --silent {url}")))),
        ],
        targets: vec![
            Target::absolute("cold start", At::new(ALONE, FIRST_BYTE), 500e6),
            Target::absolute("start through a daemon", At::new(BY_DAEMON, FIRST_BYTE), 50e6),
        ],
        plotted: FIRST_BYTE,
        most_rounds: usize::MAX,
    }]
}

fn scene(client: Process) -> Scene {
    Scene {
        link: ours_to_kernel(1500),
        files: vec![
            ("nginx.conf", Content::Text(NGINX.to_owned())),
            ("page.txt", Content::Text("hello\n".to_owned())),
        ],
        background: vec![Process::right("nginx -c {directory}/nginx.conf").once(Ready::Listens(80))],
        client,
        teller: Teller::Client,
        read: Read::FirstByte,
    }
}

fn configuration() -> String {
    format!(
        "[[network]]\ninterface = \"{INTERFACE}\"\naddresses = [\"{}/24\"]\n\n[control]\nsocket = \"{{directory}}/control.sock\"\n",
        address::OURS_LEFT
    )
}
