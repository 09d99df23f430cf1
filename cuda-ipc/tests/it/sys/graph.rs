//! Graphs, as others capture them.

use std::ffi::c_uint;

use cuda_ipc::{Context, Stream};

use super::raw::{Handle, entered, function};

/// A graph that was captured.
#[derive(Debug)]
pub(crate) struct Graph(Handle);

impl Graph {
    /// Begins to capture `stream` in the mode that forbids most.
    pub(crate) fn begin(context: &Context, stream: &Stream) {
        const GLOBAL: c_uint = 0;
        let begin =
            function::<unsafe extern "C" fn(Handle, c_uint) -> c_uint>("cuStreamBeginCapture_v2");
        // SAFETY: the stream lives.
        let code = entered(context, || unsafe { begin(stream.as_raw() as Handle, GLOBAL) });
        assert_eq!(code, 0);
    }

    /// Ends it: the graph, or the code of what spoilt it.
    pub(crate) fn end(context: &Context, stream: &Stream) -> Result<Self, c_uint> {
        let end =
            function::<unsafe extern "C" fn(Handle, *mut Handle) -> c_uint>("cuStreamEndCapture");
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream lives, the variable is written to.
        let code = entered(context, || unsafe { end(stream.as_raw() as Handle, &raw mut graph) });
        if code == 0 { Ok(Self(graph)) } else { Err(code) }
    }

    /// Runs it once in `stream`, and waits until it is over.
    pub(crate) fn run(&self, context: &Context, stream: &Stream) {
        type Instantiate = unsafe extern "C" fn(*mut Handle, Handle, u64) -> c_uint;
        let instantiate = function::<Instantiate>("cuGraphInstantiateWithFlags");
        let launch = function::<unsafe extern "C" fn(Handle, Handle) -> c_uint>("cuGraphLaunch");
        let destroy = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuGraphExecDestroy");
        let mut made = std::ptr::null_mut();
        // SAFETY: the graph lives, the variable is written to.
        assert_eq!(entered(context, || unsafe { instantiate(&raw mut made, self.0, 0) }), 0);
        let stream_handle = stream.as_raw() as Handle;
        // SAFETY: both live.
        assert_eq!(entered(context, || unsafe { launch(made, stream_handle) }), 0);
        context.synchronize(stream).expect("done");
        // SAFETY: made above, destroyed once.
        assert_eq!(entered(context, || unsafe { destroy(made) }), 0);
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let destroy = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuGraphDestroy");
        // SAFETY: made by `end`, destroyed once.
        unsafe { destroy(self.0) };
    }
}
