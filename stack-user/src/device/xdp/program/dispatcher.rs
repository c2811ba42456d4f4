//! Sharing an interface with other XDP programs, by libxdp's dispatcher.
//!
//! The kernel runs one XDP program on an interface. libxdp makes that one a dispatcher, which calls each of up to ten
//! components in the order of their priorities; who comes or goes has a new dispatcher made and put in the place of the old
//! one, in one step. The links between dispatcher and components are pinned in `/sys/fs/bpf/xdp`, so a component stays when
//! its process ends: whoever joins has to [leave].
//!
//! All of it is libxdp's own code, with which others' `xdp-loader` works hand in hand. It keeps state in globals, hence one
//! call at a time.

use std::{
    ffi::{CStr, CString, c_int, c_void},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::{Mutex, MutexGuard, PoisonError},
};

use libxdp_sys as sys;
use stack_common::abi;

use super::OBJECT;

/// A program that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) program: u32,
    pub(super) generic: bool,
    /// The program itself, for who wants to pin it.
    pub(super) fd: OwnedFd,
    /// In the order of [`MAPS`].
    pub(super) maps: [OwnedFd; MAPS.len()],
}

/// The maps that a joined program comes with.
pub(super) const MAPS: [&str; 5] = [abi::XSKS, abi::CLAIMS, abi::INDEX, abi::COUNTERS, abi::ABI];

/// One of the programs that a dispatcher runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The program's id.
    pub id: u32,
    /// The program's name, in as many letters as the kernel keeps.
    pub name: String,
    /// Lower is earlier.
    pub priority: u32,
}

/// Puts our program into the dispatcher of an interface, or into a new one if nothing is there.
///
/// A dispatcher is in the driver or after it, with all its programs: without a wish, ours goes where that is, or else into
/// the driver. Nothing of others is replaced: where there is a program and no dispatcher, it is `EBUSY`.
pub(super) fn join(interface: u32, generic: Option<bool>) -> io::Result<Joined> {
    let _libxdp = libxdp();
    let index = index(interface)?;
    let there = Dispatcher::find(index)?;
    let generic = match (&there, generic) {
        (Some(there), Some(wish)) if there.is_generic() != wish => {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        (Some(there), _) => there.is_generic(),
        (None, wish) => wish.unwrap_or(false),
    };
    drop(there);
    let object = Object::open()?;
    let program = object.program()?;
    // SAFETY: the program is one that libxdp gave us, and is not loaded yet.
    check(unsafe { sys::xdp_program__set_xdp_frags_support(program.0.as_ptr(), true) })?;
    // SAFETY: the program is one that libxdp gave us; its object outlives the call.
    check(unsafe { sys::xdp_program__attach(program.0.as_ptr(), index, mode(generic), 0) })?;
    // From here on it is attached, whatever goes wrong.
    let joined = object.joined(&program, generic).and_then(|joined| {
        // Where a kernel lacks what dispatchers are made of, libxdp attaches the program alone, and nothing else fits beside it.
        match Dispatcher::find(index)?.is_some_and(|found| found.has(joined.program)) {
            true => Ok(joined),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    });
    if joined.is_err() {
        // SAFETY: as above. There is nobody left to tell of a second failure.
        let _ = unsafe { sys::xdp_program__detach(program.0.as_ptr(), index, mode(generic), 0) };
    }
    joined
}

/// Takes our program of this id out of the dispatcher of an interface. The others go on; if it was the last one, the
/// dispatcher goes, too. One that is not there is no error.
///
/// # Errors
/// `PermissionDenied` if the program of this id is not called as ours is: somebody else's firewall, for example.
pub(super) fn leave(interface: u32, program: u32) -> io::Result<()> {
    let _libxdp = libxdp();
    let index = index(interface)?;
    let Some(dispatcher) = Dispatcher::find(index)? else {
        return Ok(());
    };
    let Some(component) = dispatcher.programs().find(|component| id(*component) == program) else {
        return Ok(());
    };
    if name(component) != abi::PROGRAM {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("program {program} is not ours"),
        ));
    }
    // SAFETY: the component lives as long as the dispatcher that we hold.
    check(unsafe { sys::xdp_program__detach(component.as_ptr(), index, dispatcher.mode(), 0) })
}

/// The programs that the dispatcher of an interface runs, in their order. None if there is no dispatcher.
pub(super) fn components(interface: u32) -> io::Result<Option<Vec<Component>>> {
    let _libxdp = libxdp();
    let Some(dispatcher) = Dispatcher::find(index(interface)?)? else {
        return Ok(None);
    };
    let describe = |component: NonNull<sys::xdp_program>| {
        // SAFETY: the component lives as long as the dispatcher that we hold.
        let priority = unsafe { sys::xdp_program__run_prio(component.as_ptr()) };
        Component { id: id(component), name: name(component), priority }
    };
    Ok(Some(dispatcher.programs().map(describe).collect()))
}

/// Has libxdp for ourselves, and quiet: what it would print, errors say.
fn libxdp() -> MutexGuard<'static, ()> {
    unsafe extern "C" {
        fn libbpf_set_print(print: Option<unsafe extern "C" fn()>) -> Option<unsafe extern "C" fn()>;
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: both libraries print nothing where there is no function to print with; whoever else in this process uses them
    // (xsk-rs, for rings) does not print by them.
    unsafe {
        sys::libxdp_set_print(None);
        libbpf_set_print(None);
    }
    guard
}

fn index(interface: u32) -> io::Result<c_int> {
    c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn mode(generic: bool) -> sys::xdp_attach_mode {
    if generic { sys::xdp_attach_mode_XDP_MODE_SKB } else { sys::xdp_attach_mode_XDP_MODE_NATIVE }
}

/// libxdp's and libbpf's functions return a negative error number when they fail.
fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// A pointer that the libraries returned, unless it is one of their error values.
fn pointer<T>(result: *mut T) -> io::Result<NonNull<T>> {
    // SAFETY: the value is looked at, and not followed.
    let error = unsafe { sys::libxdp_get_error(result.cast::<c_void>()) };
    match (error, NonNull::new(result)) {
        (0, Some(pointer)) => Ok(pointer),
        (0, None) => Err(io::Error::last_os_error()),
        (error, _) => Err(io::Error::from_raw_os_error((-error) as i32)),
    }
}

fn id(program: NonNull<sys::xdp_program>) -> u32 {
    // SAFETY: callers hold what the program belongs to.
    unsafe { sys::xdp_program__id(program.as_ptr()) }
}

fn name(program: NonNull<sys::xdp_program>) -> String {
    // SAFETY: callers hold what the program, and its name with it, belongs to.
    let name = unsafe {
        let name = sys::xdp_program__name(program.as_ptr());
        if name.is_null() { c"" } else { CStr::from_ptr(name) }
    };
    name.to_string_lossy().into_owned()
}

/// Our object as libbpf has it.
struct Object(NonNull<sys::bpf_object>);

/// Our program as libxdp has it.
struct Program(NonNull<sys::xdp_program>);

/// A dispatcher and its components, as libxdp found them.
struct Dispatcher(NonNull<sys::xdp_multiprog>);

impl Object {
    fn open() -> io::Result<Self> {
        // SAFETY: libbpf reads as many bytes as it is told, during the call only.
        let object = unsafe { sys::bpf_object__open_mem(OBJECT.as_ptr().cast(), OBJECT.len(), ptr::null()) };
        let object = Self(pointer(object)?);
        let mut map = ptr::null();
        loop {
            // SAFETY: the object is open; the map is the last one that it gave us, or null for the first.
            map = unsafe { sys::bpf_object__next_map(object.0.as_ptr(), map) };
            if map.is_null() {
                return Ok(object);
            }
            // The maps say that they may be pinned, which libbpf, too, would take for an order.
            // SAFETY: the map is one of the object's.
            check(unsafe { sys::bpf_map__set_pin_path(map.cast_mut(), ptr::null()) })?;
        }
    }

    fn program(&self) -> io::Result<Program> {
        // SAFETY: the object is open; without a name of a section, libxdp takes the only program.
        pointer(unsafe { sys::xdp_program__from_bpf_obj(self.0.as_ptr(), ptr::null()) }).map(Program)
    }

    /// What is wanted of the program once it is loaded, in descriptors of our own.
    fn joined(&self, program: &Program, generic: bool) -> io::Result<Joined> {
        let own = |fd: c_int| -> io::Result<OwnedFd> {
            check(fd)?;
            // SAFETY: the descriptor is open for as long as object and program are.
            unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
        };
        let map = |name: &str| {
            let name = CString::new(name)?;
            // SAFETY: the object is open, and the name ends with a zero.
            own(unsafe { sys::bpf_object__find_map_fd_by_name(self.0.as_ptr(), name.as_ptr()) })
        };
        let [xsks, claims, index, counters, version] = MAPS.map(map);
        Ok(Joined {
            program: id(program.0),
            generic,
            // SAFETY: the program is one that libxdp gave us.
            fd: own(unsafe { sys::xdp_program__fd(program.0.as_ptr()) })?,
            maps: [xsks?, claims?, index?, counters?, version?],
        })
    }
}

impl Dispatcher {
    /// The dispatcher of an interface, if there is one.
    fn find(interface: c_int) -> io::Result<Option<Self>> {
        // SAFETY: it takes a number.
        let found = match pointer(unsafe { sys::xdp_multiprog__get_from_ifindex(interface) }) {
            Ok(found) => Self(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: it is what libxdp found.
        let alone = unsafe { sys::xdp_multiprog__is_legacy(found.0.as_ptr()) };
        Ok((!alone).then_some(found))
    }

    fn programs(&self) -> impl Iterator<Item = NonNull<sys::xdp_program>> {
        let after = |last: *mut sys::xdp_program| {
            // SAFETY: the last one is of this dispatcher, or null for the first.
            NonNull::new(unsafe { sys::xdp_multiprog__next_prog(last, self.0.as_ptr()) })
        };
        std::iter::successors(after(ptr::null_mut()), move |last| after(last.as_ptr()))
    }

    fn has(&self, program: u32) -> bool {
        self.programs().any(|component| id(component) == program)
    }

    fn mode(&self) -> sys::xdp_attach_mode {
        // SAFETY: it is what libxdp found.
        unsafe { sys::xdp_multiprog__attach_mode(self.0.as_ptr()) }
    }

    fn is_generic(&self) -> bool {
        self.mode() == sys::xdp_attach_mode_XDP_MODE_SKB
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more: programs of it are declared, and so dropped, after and before it.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody uses it any more.
        unsafe { sys::xdp_program__close(self.0.as_ptr()) }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SAFETY: it is ours, and its components are borrowed from it.
        unsafe { sys::xdp_multiprog__close(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libxdp reads it out of the object: what xdp-loader shows, and what a dispatcher goes by.
    #[test]
    fn the_object_says_how_it_is_run_among_others() {
        let _libxdp = libxdp();
        let object = Object::open().expect("opens");
        let program = object.program().expect("a program");
        // SAFETY: the program is open.
        let (priority, chains) = unsafe {
            let chains = |action| sys::xdp_program__chain_call_enabled(program.0.as_ptr(), action);
            (sys::xdp_program__run_prio(program.0.as_ptr()), [0, 1, 2, 3, 4].map(chains))
        };
        assert_eq!(priority as usize, abi::RUN_PRIORITY);
        assert_eq!(chains, [false, false, true, false, false], "XDP_PASS alone goes on");
    }
}
