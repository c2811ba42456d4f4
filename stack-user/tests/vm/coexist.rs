//! Beside other XDP programs on one card: in libxdp's dispatcher, which takes extension programs that few sandboxes allow.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    guest::{Guest, HOST, NIC, OBJECTS, OURS, Server},
    process::Outcome,
};

/// Where `xstack attach` keeps the program of the card under test.
const PINS: &str = "/sys/fs/bpf/xstack/xs0";

/// What a tool printed, which must succeed.
#[track_caller]
fn tool(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program in the dispatcher, as xdp-loader tells.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Component {
    priority: u32,
    name: String,
    id: String,
    chain_actions: String,
}

/// The components of the card's dispatcher, in their order.
fn components() -> Vec<Component> {
    let status = tool("xdp-loader", &format!("status {NIC}"));
    // ` =>     10      xdpfilt_alw_tcp           1234     abcdef0123456789  XDP_PASS`
    let of = |line: &str| {
        let words: Vec<_> = line.strip_prefix(" =>")?.split_whitespace().map(str::to_owned).collect();
        let [priority, name, id, _tag, actions @ ..] = &words[..] else { return None };
        let chain_actions = actions.join(" ");
        Some(Component {
            priority: priority.parse().ok()?,
            name: name.clone(),
            id: id.clone(),
            chain_actions,
        })
    };
    status.lines().filter_map(of).collect()
}

fn names() -> Vec<String> {
    components().into_iter().map(|component| component.name).collect()
}

fn id_of(name: &str) -> String {
    components().into_iter().find(|component| component.name == name).unwrap().id
}

/// xdp-filter's program on the card, as somebody else's. Undone when it is dropped, as far as that has not been done.
struct Filter;

impl Filter {
    const NAME: &str = "xdpfilt_alw_tcp";

    fn load() -> Self {
        tool("xdp-filter", &format!("load -m native -f tcp {NIC}"));
        Self
    }

    /// Has it drop what comes from the server.
    fn block() {
        tool("xdp-filter", "port -m src -p tcp 80");
    }

    fn allow() {
        tool("xdp-filter", "port -m src -p tcp 80 --remove");
    }
}

/// Takes everything off the card that a scenario may have left.
struct CleanUp;

impl Drop for CleanUp {
    fn drop(&mut self) {
        let run = |program: &str, words: &str| {
            let mut command = Command::new(program);
            let _ =
                command.args(words.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        run("xstack", &format!("detach {NIC} --force"));
        run("xdp-loader", &format!("unload {NIC} --all"));
        run("xdp-loader", "clean");
        run("busybox", "rm -rf /sys/fs/bpf/xdp-filter /sys/fs/bpf/operator");
    }
}

/// Whether what we need is in the guest; a clean card.
fn prepared(guest: &Guest) -> Option<CleanUp> {
    let all = ["xdp-loader", "xdp-filter", "bpftool"];
    all.iter().all(|program| guest.require_program(program)).then(|| {
        drop(CleanUp);
        CleanUp
    })
}

/// Fetches by xstack with these options. What the filter drops ends with a time-out.
fn fetch(guest: &Guest, server: &Server, options: &[&str]) -> Outcome {
    let url = server.url(20_000);
    let curl = ["curl", "--silent", "--show-error", "--max-time", "20", &url];
    guest.run_xstack(&[options, &curl].concat())
}

#[track_caller]
fn works(guest: &Guest, server: &Server, options: &[&str]) {
    assert_eq!(fetch(guest, server, options).expect_code(0).stdout.len(), 20_000);
}

/// The filter is before us, and so drops what we would have got.
#[track_caller]
fn is_filtered(guest: &Guest, server: &Server, options: &[&str]) {
    Filter::block();
    let url = server.url(1000);
    let curl = ["curl", "--silent", "--show-error", "--max-time", "6", &url];
    guest.run_xstack(&[options, &curl].concat()).expect_code(28);
    Filter::allow();
}

/// The kernel's own traffic goes through everything that is there.
#[track_caller]
fn the_kernel_is_reached(guest: &Guest) {
    let ping = guest.peer("busybox").args(["ping", "-c", "2", "-W", "5", HOST]).output().unwrap();
    assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
}

#[test]
fn xdp_loader_runs_our_object_and_another_program_in_one_dispatcher() {
    let Some(guest) = Guest::long_on_igb("xdp_loaders_dispatcher") else { return };
    let Some(_clean) = prepared(&guest) else { return };
    let server = guest.serve();
    let pins = "/sys/fs/bpf/operator";
    let program = format!("pinned:{pins}");
    let options = ["--program", &program];
    let load = format!("load -m native -p {pins} {NIC} {OBJECTS}/xstack.bpf.o");
    fs::create_dir_all(pins).unwrap();
    tool("xdp-loader", &load);
    let _filter = Filter::load();

    let found = components();
    let told: Vec<_> = found.iter().map(|one| (one.priority, &*one.name, &*one.chain_actions)).collect();
    assert_eq!(told, [(10, Filter::NAME, "XDP_PASS"), (15, "xstack", "XDP_PASS")]);
    // Both do their work: ours steers, the filter drops, and what neither wants is the kernel's.
    works(&guest, &server, &options);
    is_filtered(&guest, &server, &options);
    works(&guest, &server, &options);
    the_kernel_is_reached(&guest);

    // Either goes, and the other stays and works.
    tool("xdp-loader", &format!("unload {NIC} --id {}", id_of(Filter::NAME)));
    assert_eq!(names(), ["xstack"]);
    works(&guest, &server, &options);
    tool("xdp-loader", &format!("unload {NIC} --all"));
    fs::remove_dir_all(pins).unwrap();
    fs::create_dir_all(pins).unwrap();

    drop(Command::new("busybox").args(["rm", "-rf", "/sys/fs/bpf/xdp-filter"]).status());
    let _filter = Filter::load();
    tool("xdp-loader", &load);
    tool("xdp-loader", &format!("unload {NIC} --id {}", id_of("xstack")));
    assert_eq!(names(), [Filter::NAME]);
    Filter::block();
    // The peer's server is behind the filter for the kernel, too.
    let kernel = Command::new("busybox")
        .args(["wget", "-q", "-T", "5", "-O", "/dev/null", &server.url(1000)])
        .status()
        .unwrap();
    assert!(!kernel.success(), "the filter no longer drops");
    Filter::allow();
}

#[test]
#[ignore = "long"]
fn our_own_attach_joins_the_dispatcher_that_is_there_and_leaves_it() {
    let Some(guest) = Guest::new("joins_the_dispatcher") else { return };
    let Some(_clean) = prepared(&guest) else { return };
    let server = guest.serve();
    let _filter = Filter::load();
    assert_eq!(names(), [Filter::NAME]);
    works(&guest, &server, &[]);
    assert_eq!(names(), [Filter::NAME], "it has left");
    is_filtered(&guest, &server, &[]);

    let running = guest.start_xstack(&["serve", "/etc"]);
    assert_eq!(names(), [Filter::NAME, "xstack"]);
    the_kernel_is_reached(&guest);
    running.end(&guest);
    assert_eq!(names(), [Filter::NAME], "it has left when it returns");

    // The process that leaves for one that is killed.
    let running = guest.start_xstack(&["serve", "/etc"]);
    assert_eq!(names(), [Filter::NAME, "xstack"]);
    running.kill();
    guest.wait_until("the guard has left for it", || names() == [Filter::NAME]);
    the_kernel_is_reached(&guest);
    works(&guest, &server, &[]);
}

/// Both were killed: the program stays, and passes everything on, until the next xstack comes.
#[test]
#[ignore = "long"]
fn a_program_whose_guard_was_killed_too_is_harmless_and_is_taken_out_by_the_next_start() {
    let Some(guest) = Guest::new("killed_guard") else { return };
    let Some(_clean) = prepared(&guest) else { return };
    let server = guest.serve();
    let _filter = Filter::load();
    let running = guest.start_xstack(&["serve", "/etc"]);
    let guards: Vec<u32> = processes_with("--guard-dispatcher");
    assert_eq!(guards.len(), 1);
    for guard in guards {
        let status = fs::read_to_string(format!("/proc/{guard}/status")).unwrap();
        // CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF: bits 12, 21, 38, 39.
        let capabilities = format!("CapPrm:\t{:016x}", 1u64 << 12 | 1 << 21 | 1 << 38 | 1 << 39);
        assert!(status.lines().any(|line| line == capabilities), "{status}");
        tool("busybox", &format!("kill -KILL {guard}"));
    }
    running.kill();
    assert_eq!(names(), [Filter::NAME, "xstack"], "nobody is left who leaves");
    the_kernel_is_reached(&guest);
    is_filtered(&guest, &server, &[]);
    assert_eq!(names(), [Filter::NAME], "the one that was killed is out, too");
    assert!(fs::read_dir("/sys/fs/bpf/xstack/joined-dispatchers").unwrap().next().is_none());
}

#[test]
#[ignore = "long"]
fn what_is_attached_to_stay_shares_the_card_with_others() {
    let Some(guest) = Guest::new("attach_beside") else { return };
    let Some(_clean) = prepared(&guest) else { return };
    let server = guest.serve();
    let xstack = |words: &str| {
        let output = Command::new("xstack").args(words.split_whitespace()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Into a dispatcher that is there.
    let _filter = Filter::load();
    let attached = xstack(&format!("attach {NIC}"));
    assert!(attached.contains("in libxdp's dispatcher"), "{attached}");
    assert_eq!(names(), [Filter::NAME, "xstack"]);
    let id = id_of("xstack");
    works(&guest, &server, &[]);
    is_filtered(&guest, &server, &[]);
    assert_eq!(id_of("xstack"), id, "nobody attached anything");
    let status = xstack(&format!("status {NIC}"));
    assert!(status.contains(&format!("program {id} by libxdp's dispatcher, native mode")), "{status}");
    assert!(status.contains("priority 10), xstack (id ") && status.contains("priority 15)"), "{status}");
    xstack(&format!("detach {NIC}"));
    assert_eq!(names(), [Filter::NAME]);
    assert!(!Path::new(PINS).exists());
    tool("xdp-loader", &format!("unload {NIC} --all"));
    drop(Command::new("busybox").args(["rm", "-rf", "/sys/fs/bpf/xdp-filter"]).status());

    // Into one of our own, which others join. What they do to it does not change what we are.
    xstack(&format!("attach {NIC} --dispatcher"));
    assert_eq!(names(), ["xstack"]);
    let id = id_of("xstack");
    let running = guest.start_xstack(&["serve", "/etc"]);
    let _filter = Filter::load();
    assert_eq!((names(), id_of("xstack")), (vec![Filter::NAME.to_owned(), "xstack".to_owned()], id.clone()));
    guest.wait_until("it still answers", || {
        guest.peer("busybox").args(["ping", "-c1", "-W1", OURS]).output().unwrap().status.success()
    });
    tool("xdp-loader", &format!("unload {NIC} --id {}", id_of(Filter::NAME)));
    assert_eq!((names(), id_of("xstack")), (vec!["xstack".to_owned()], id));
    running.end(&guest);
    works(&guest, &server, &[]);
    xstack(&format!("detach {NIC}"));
    assert!(!guest.has_program());
}

/// xdpdump looks at what enters the dispatcher, steered frames included, which tcpdump does not see.
#[test]
#[ignore = "long"]
fn xdpdump_sees_what_is_steered() {
    let Some(guest) = Guest::new("xdpdump") else { return };
    let Some(_clean) = prepared(&guest) else { return };
    if !guest.require_program("xdpdump") {
        return;
    }
    let server = guest.serve();
    tool("xstack", &format!("attach {NIC} --dispatcher"));
    let file = guest.file("xdpdump.pcapng");
    let mut dump = Command::new("xdpdump")
        .args(["-i", NIC, "-w"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(guest.file("xdpdump.stderr")).unwrap())
        .spawn()
        .unwrap();
    let size = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    guest.wait_until("xdpdump is ready", || size() > 0 || dump.try_wait().unwrap().is_some());
    std::thread::sleep(Duration::from_secs(2));
    works(&guest, &server, &[]);
    tool("busybox", &format!("kill -INT {}", dump.id()));
    dump.wait().unwrap();
    let said = fs::read_to_string(guest.file("xdpdump.stderr")).unwrap();
    assert!(size() > 20_000, "{} bytes: {said}", size());
}

/// Processes that have a word on their command line.
fn processes_with(word: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbered = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_word = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|found| found == word.as_bytes()))
    };
    numbered.filter(has_word).collect()
}
