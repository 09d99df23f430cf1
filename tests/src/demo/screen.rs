//! What the person at the terminal sees: lines that stay, and a block of figures that changes in
//! place. Where there is no terminal the block becomes a line every two seconds.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

/// Between two lines of figures where nothing can change in place.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Screen {
    out: Stdout,
    is_terminal: bool,
    /// Lines of the block that stands at the bottom.
    block: usize,
    shown: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = out.is_terminal() && !is_dumb;
        Self { out, is_terminal, block: 0, shown: Instant::now() }
    }

    /// Writes a heading, and takes the block away.
    pub(super) fn heading(&mut self, text: &str) {
        self.line("");
        if self.is_terminal {
            self.line(&format!("\x1b[1m{text}\x1b[0m"));
        } else {
            self.line(text);
        }
        // The first plain line of figures comes when there is something to say.
        self.shown = Instant::now();
    }

    /// Writes a line that stays, and takes the block away.
    pub(super) fn line(&mut self, text: &str) {
        let erased = self.erasure();
        self.block = 0;
        self.write(&format!("{erased}{text}\n"));
    }

    /// Shows the figures of this moment: `block` in place of the one before, or now and then
    /// `brief` in a line.
    pub(super) fn figures(&mut self, block: &[String], brief: Option<&str>) {
        if !self.is_terminal {
            if let Some(brief) = brief
                && self.shown.elapsed() >= PLAIN_EVERY
            {
                self.shown = Instant::now();
                self.line(brief);
            }
            return;
        }
        // Without wrapping, so that a narrow terminal shows as many lines as it is given.
        let text = format!("{}\x1b[?7l{}\n\x1b[?7h", self.erasure(), block.join("\n"));
        self.block = block.len();
        self.write(&text);
    }

    /// Takes the block away: what comes next may be an error.
    pub(super) fn erase(&mut self) {
        let erased = self.erasure();
        self.block = 0;
        self.write(&erased);
    }

    fn erasure(&self) -> String {
        if self.block == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.block) }
    }

    fn write(&mut self, text: &str) {
        // A closed terminal is not worth a failure: the checks go on, the exit status tells.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}
