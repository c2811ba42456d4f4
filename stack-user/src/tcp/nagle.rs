//! When to send less than a full segment: Nagle's algorithm and the sender's half of avoiding silly windows.

/// What the decision needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// D: bytes of the segment that is next.
    pub len: usize,
    /// More is behind it, so that it will not grow.
    pub complete: bool,
    /// FIN goes with it.
    pub fin: bool,
    /// U: bytes that the peer's window still takes.
    pub usable: usize,
    /// MAX.SND.WND.
    pub max_window: usize,
    /// Eff.snd.MSS.
    pub mss: usize,
    /// Nothing is outstanding.
    pub idle: bool,
    /// The application wants no delay (RFC 9293 §3.7.4, MUST-17).
    pub nodelay: bool,
    /// The override timer expired (RFC 9293 §3.8.6.2.1, rule 4).
    pub overridden: bool,
}

/// How many bytes of the segment to send now; 0 is to wait.
///
/// RFC 9293 §3.8.6.2.1 (MUST-38), rules 1 to 4: full segments at once (§3.9.1.2, SHLD-28), and nothing waits for ever
/// (MUST-60); with §3.7.4 (SHLD-7) for the small segments.
pub fn bytes_to_send(q: Question) -> usize {
    let allowed = q.len.min(q.usable);
    let full = allowed >= q.mss;
    // Rule 2: all of it fits, and nobody gains by waiting.
    let all = q.len <= q.usable && (q.complete || q.fin || q.idle || q.nodelay);
    // Rule 3: at least half of what the peer ever took. Else a small window would be filled with crumbs.
    let half_window = allowed * 2 >= q.max_window && (q.idle || q.nodelay || q.complete);
    if allowed > 0 && (full || all || half_window || q.overridden) { allowed } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: Question = Question {
        len: 1000,
        complete: true,
        fin: false,
        usable: 10_000,
        max_window: 20_000,
        mss: 1000,
        idle: false,
        nodelay: false,
        overridden: false,
    };

    #[test]
    fn small_segments_wait_while_something_is_outstanding_shld_7() {
        let small = Question { len: 10, complete: false, ..Q };
        assert_eq!(bytes_to_send(small), 0);
        assert_eq!(bytes_to_send(Question { idle: true, ..small }), 10);
        assert_eq!(bytes_to_send(Question { fin: true, ..small }), 10, "FIN: nothing can join it");
        assert_eq!(bytes_to_send(Question { nodelay: true, ..small }), 10, "MUST-17");
        assert_eq!(bytes_to_send(Q), 1000);
    }

    #[test]
    fn a_small_window_is_not_filled_with_crumbs_must_38() {
        assert_eq!(bytes_to_send(Question { usable: 999, ..Q }), 0);
        assert_eq!(bytes_to_send(Question { usable: 999, overridden: true, ..Q }), 999);
        assert_eq!(bytes_to_send(Question { usable: 400, max_window: 800, idle: true, ..Q }), 400);
        assert_eq!(bytes_to_send(Question { usable: 0, overridden: true, ..Q }), 0);
    }
}
