//! The scripted peer: does what the lines on its standard input say. See `st_tests::script`.

fn main() -> std::io::Result<()> {
    st_tests::script::serve()
}
