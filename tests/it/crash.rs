//! A short campaign of random deaths; the long one is `cargo xtask crash`.

use std::process::Command;

use st_tests::Seed;

const KILLS: u64 = 60;

#[test]
fn sixty_random_deaths_cost_nobody_anything() {
    let seed = Seed::from_environment();
    let mut command = Command::new(env!("CARGO_BIN_EXE_st-crash"));
    command.args(["--iterations", &KILLS.to_string(), "--seed", &seed.start().to_string()]);
    let output = command.output().expect("the program started");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    let number = |row: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(row));
        let word = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        word.parse::<u64>().unwrap_or_else(|_| panic!("no number of {row} in:\n{said}"))
    };
    assert_eq!(number("kills"), KILLS);
    // Work was done between the deaths, and some of them hurt.
    for row in ["inside a slot or the lock", "frames published", "frames read, all whole"] {
        assert!(number(row) > 0, "{said}");
    }
}
