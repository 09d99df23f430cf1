//! A kernel, loaded and launched with cudarc.

use std::ffi::{CString, c_void};
use std::ptr;

use cudarc::driver::DriverError;
use cudarc::driver::result::{ctx, device, init, launch_kernel, module, primary_ctx};
use cudarc::driver::sys::{CUfunction, CUstream};

/// What `nvcc -ptx` makes of
///
/// ```c
/// __global__ void scale(float *to, const float *from, float factor, float summand, unsigned count) {
///     unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
///     if (at < count) to[at] = from[at] * factor + summand;
/// }
/// ```
const SCALE: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry scale(.param .u64 to, .param .u64 from, .param .f32 factor, .param .f32 summand, .param .u32 count)
{
    .reg .pred %over;
    .reg .b32 %at, %block, %threads, %thread, %count;
    .reg .f32 %value, %factor, %summand;
    .reg .b64 %to, %from, %offset;
    ld.param.u64 %to, [to];
    ld.param.u64 %from, [from];
    ld.param.f32 %factor, [factor];
    ld.param.f32 %summand, [summand];
    ld.param.u32 %count, [count];
    mov.u32 %block, %ctaid.x;
    mov.u32 %threads, %ntid.x;
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %at, %block, %threads, %thread;
    setp.ge.u32 %over, %at, %count;
    @%over bra DONE;
    mul.wide.u32 %offset, %at, 4;
    add.u64 %from, %from, %offset;
    add.u64 %to, %to, %offset;
    ld.global.f32 %value, [%from];
    fma.rn.f32 %value, %value, %factor, %summand;
    st.global.f32 [%to], %value;
DONE:
    ret;
}
";

/// `to = from * factor + summand`, for each element.
pub(crate) struct Scale(CUfunction);

impl Scale {
    /// For the first device, whose primary context becomes that of this thread.
    pub(crate) fn load() -> Result<Self, DriverError> {
        let image = CString::new(SCALE).unwrap_or_default();
        let name = CString::new("scale").unwrap_or_default();
        init()?;
        let device = device::get(0)?;
        // SAFETY: the device exists. The context, which this crate uses too, is kept for good.
        let context = unsafe { primary_ctx::retain(device) }?;
        // SAFETY: it was retained just now.
        unsafe { ctx::set_current(context) }?;
        // SAFETY: a text that ends with a zero byte.
        let module = unsafe { module::load_data(image.as_ptr().cast()) }?;
        // SAFETY: the module is never unloaded.
        Ok(Self(unsafe { module::get_function(module, name) }?))
    }

    /// Queues it for `count` floats at addresses of the device.
    pub(crate) fn queue(
        &self,
        queue: &cuda_ipc::Stream,
        (to, from): (u64, u64),
        (mut factor, mut summand): (f32, f32),
        mut count: u32,
    ) -> Result<(), DriverError> {
        const THREADS: u32 = 256;
        let (mut to, mut from) = (to, from);
        let mut parameters: [*mut c_void; 5] = [
            ptr::from_mut(&mut to).cast(),
            ptr::from_mut(&mut from).cast(),
            ptr::from_mut(&mut factor).cast(),
            ptr::from_mut(&mut summand).cast(),
            ptr::from_mut(&mut count).cast(),
        ];
        let blocks = (count.div_ceil(THREADS), 1, 1);
        let stream = queue.as_raw() as CUstream;
        // SAFETY: the parameters are those of the kernel, which are copied; the stream is one of the
        // context; the caller's addresses are of as many floats.
        unsafe { launch_kernel(self.0, blocks, (THREADS, 1, 1), 0, stream, &mut parameters) }
    }
}
