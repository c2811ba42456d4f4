//! Our place in a dispatcher, which has to be left: the kernel does not take it back when we end.
//!
//! Until it is left, it does no harm. The program's maps are ours alone; with our sockets closed, it passes every frame on.
//!
//! Who joins holds a lock on a directory beside the pins, named after interface and program. So the next one to join knows who
//! was killed, and leaves for them.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Mode, ProgramError, attachment,
    dispatcher::{self, Joined},
    owners, persistent,
    pins::ROOT,
};

/// Below [`ROOT`]: no interface has a name of that length.
const DIRECTORY: &str = "joined-dispatchers";

/// How long somebody who joins, or leaves for the dead, is waited for. Shorter, and a start fails beside another one on a slow
/// machine; longer, and one that hangs is told late.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sees to it that a dispatcher is left: at once when it is dropped, returning when that is done, and also when our process ends
/// without dropping anything.
pub type Guard = Box<dyn Send + Sync>;

/// A program in the dispatcher of an interface. Dropped, it leaves.
pub struct Membership {
    interface: u32,
    program: u32,
    guard: Option<Guard>,
    _alive: File,
}

impl Membership {
    /// Whether an interface has a dispatcher, so that there is a place for us beside others. Those of ours who were killed are
    /// made to leave before.
    pub(super) fn is_called_for(interface: &str, index: u32) -> Result<bool, ProgramError> {
        let has_one = || match attachment::attached(index) {
            Ok(attached) => Ok(attached.is_some_and(|attached| attached.is_dispatcher())),
            Err(source) => Err(ProgramError::Netlink { interface: interface.to_owned(), source }),
        };
        if !has_one()? {
            return Ok(false);
        }
        // Whoever joins just now has no mark that is locked yet. If others come and go all the time, the dead can wait.
        if let Ok(_nobody_joins) = turn(&marks()) {
            leave_for_the_dead(index);
        }
        has_one()
    }

    pub(super) fn begin(interface: &str, index: u32, mode: Mode) -> Result<(Self, Joined), ProgramError> {
        let turn = turn(&marks()).map_err(|source| ProgramError::keep(&marks(), &source))?;
        let joined = join(interface, index, mode)?;
        let program = joined.program;
        let marked = mark(index, program);
        drop(turn);
        match marked {
            Ok(alive) => Ok((Self { interface: index, program, guard: None, _alive: alive }, joined)),
            Err(source) => {
                let _ = dispatcher::leave(index, program);
                Err(ProgramError::keep(&place(index, program), &source))
            }
        }
    }

    /// The interface's number and the program's, by which [`leave`](Self::leave) can be called elsewhere.
    #[must_use]
    pub fn place(&self) -> (u32, u32) {
        (self.interface, self.program)
    }

    pub(super) fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// Takes a program of ours out of the dispatcher of an interface, in the place of who put it there. One that nobody marked
    /// as theirs is left where it is: whoever calls this may have been told any numbers.
    ///
    /// # Errors
    /// When the program is not ours, or the kernel does not let us: it takes CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON.
    pub fn leave(interface: u32, program: u32) -> io::Result<()> {
        if !place(interface, program).exists() {
            return Ok(());
        }
        dispatcher::leave(interface, program)?;
        match fs::remove_dir(place(interface, program)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            return drop(guard);
        }
        if let Err(error) = Self::leave(self.interface, self.program) {
            tracing::warn!(
                "could not leave the dispatcher ({error}): the next xstack on this interface does, or `xdp-loader unload \
                 --id {}` with the interface's name; until then it passes every frame on",
                self.program
            );
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Membership").field(&self.interface).field(&self.program).finish()
    }
}

/// Joins the dispatcher of an interface, or says why not.
pub(super) fn join(interface: &str, index: u32, mode: Mode) -> Result<Joined, ProgramError> {
    dispatcher::join(index, persistent::wish_generic(mode)).map_err(|source| {
        let interface = interface.to_owned();
        match (source.raw_os_error(), source.kind()) {
            (Some(libc::EXDEV), _) => {
                let there = if mode == Mode::Generic { "native" } else { "generic" };
                ProgramError::OtherMode { interface, there }
            }
            (Some(libc::EPERM | libc::EACCES), _) => ProgramError::DispatcherPrivilege { interface },
            (Some(libc::E2BIG), _) => ProgramError::DispatcherFull { interface },
            (_, io::ErrorKind::Unsupported) => ProgramError::NoDispatcher { interface },
            (Some(libc::EBUSY | libc::EEXIST), _) => ProgramError::in_the_way(&interface, index),
            _ => ProgramError::Dispatcher { interface, source },
        }
    })
}

/// Where all marks are.
fn marks() -> PathBuf {
    Path::new(ROOT).join(DIRECTORY)
}

fn place(interface: u32, program: u32) -> PathBuf {
    marks().join(format!("{interface}-{program}"))
}

/// Has the marks to ourselves, so that nobody takes one that is being made for that of a dead one.
fn turn(marks: &Path) -> io::Result<File> {
    // Closed to others, below one that members of a group have to pass.
    persistent::make_directory(marks)?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match owners::try_lock(marks)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < patience => thread::sleep(Duration::from_millis(10)),
            None => {
                let why = "somebody else has joined or left for seconds";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
        }
    }
}

/// Says that the program's process is alive, for as long as the lock is held. It takes our [turn].
fn mark(interface: u32, program: u32) -> io::Result<File> {
    let place = place(interface, program);
    persistent::make_directory(&place)?;
    owners::try_lock(&place)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// Takes those out of the dispatcher whose process is gone. It takes our [turn].
fn leave_for_the_dead(index: u32) {
    let entries = fs::read_dir(marks()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| name.split_once('-'));
        let numbers =
            numbers.and_then(|(at, program)| Some((at.parse::<u32>().ok()?, program.parse::<u32>().ok()?)));
        let Some((at, program)) = numbers else { continue };
        // Interfaces of another network namespace have the same numbers, and other programs.
        if at != index || !matches!(owners::try_lock(&entry.path()), Ok(Some(_))) {
            continue;
        }
        let ours = dispatcher::components(index).is_ok_and(|components| {
            components.into_iter().flatten().any(|component| component.id == program)
        });
        if ours || attachment::program(program).is_none() {
            match Membership::leave(index, program) {
                Ok(()) if ours => {
                    tracing::info!("left the dispatcher for an xstack that was killed (program {program})")
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!("cannot leave the dispatcher for an xstack that was killed: {error}")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory is made, and locked only then: in between, it looks like that of somebody who was killed.
    #[test]
    fn marks_are_made_and_looked_through_by_one_at_a_time() {
        let root = tempfile::tempdir().expect("a directory");
        let marks = root.path().join("marks");
        let ours = turn(&marks).expect("it is free");
        let waits = thread::spawn({
            let marks = marks.clone();
            move || turn(&marks).map(|_| Instant::now())
        });
        thread::sleep(Duration::from_millis(100));
        let released = Instant::now();
        drop(ours);
        let theirs = waits.join().expect("no panic").expect("its turn");
        assert!(theirs >= released, "two at a time");
    }

    /// libxdp is not even asked, which takes no interface of that number.
    #[test]
    fn what_nobody_marked_is_not_taken_out() {
        assert!(dispatcher::leave(u32::MAX, 1).is_err());
        Membership::leave(u32::MAX, 1).expect("nothing to do");
    }
}
