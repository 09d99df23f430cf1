//! Photographs: decoded, and brought to the one shape that the stream has.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

pub(super) const HEIGHT: usize = 480;
pub(super) const WIDTH: usize = 640;
/// Red, green, blue.
pub(super) const CHANNELS: usize = 3;
pub(super) const ROW_BYTES: usize = WIDTH * CHANNELS;
pub(super) const FRAME_BYTES: usize = HEIGHT * ROW_BYTES;

/// A photograph of [`HEIGHT`] x [`WIDTH`] RGB bytes, row-major.
#[derive(Debug)]
pub(super) struct Photograph(Vec<u8>);

/// A photograph scrolled up by some rows: its bytes, in the order of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scrolled<'p> {
    pub(super) upper: &'p [u8],
    pub(super) lower: &'p [u8],
}

impl Photograph {
    /// Decodes a PNG or JPEG file, scales it until it covers the frame and cuts off what stands out
    /// on two sides.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |why: String| format!("photograph {}: {why}", path.display());
        let file = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let decoded = if file.starts_with(b"\x89PNG") {
            decode_png(&file)
        } else if file.starts_with(&[0xff, 0xd8]) {
            decode_jpeg(&file)
        } else {
            Err("neither PNG nor JPEG".to_owned())
        };
        Ok(Self(decoded.map_err(failed)?.cover()))
    }

    /// The photograph scrolled up by `rows`, those that leave at the top coming back below.
    pub(super) fn scrolled(&self, rows: usize) -> Scrolled<'_> {
        let (lower, upper) = self.0.split_at(rows % HEIGHT * ROW_BYTES);
        Scrolled { upper, lower }
    }
}

/// RGB pixels of any size.
struct Pixels {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

fn decode_png(file: &[u8]) -> Result<Pixels, String> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader.output_buffer_size().ok_or("too large")?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(|error| error.to_string())?;
    samples.truncate(frame.buffer_size());
    let bytes = match frame.color_type {
        png::ColorType::Rgb => samples,
        png::ColorType::Rgba => samples
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|&[red, green, blue, _]| [red, green, blue])
            .collect(),
        png::ColorType::Grayscale => samples.iter().flat_map(|&grey| [grey; CHANNELS]).collect(),
        png::ColorType::GrayscaleAlpha => {
            samples.as_chunks::<2>().0.iter().flat_map(|&[grey, _]| [grey; CHANNELS]).collect()
        }
        png::ColorType::Indexed => return Err("its palette was not expanded".to_owned()),
    };
    Ok(Pixels { width: frame.width as usize, height: frame.height as usize, bytes })
}

fn decode_jpeg(file: &[u8]) -> Result<Pixels, String> {
    // RGB is what the decoder gives unless told otherwise.
    let mut decoder = JpegDecoder::new(ZCursor::new(file));
    let bytes = decoder.decode().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    Ok(Pixels { width, height, bytes })
}

impl Pixels {
    /// The largest part in the middle that has the proportions of a frame, at the size of a frame.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positions in a photograph: small and not negative"
    )]
    fn cover(&self) -> Vec<u8> {
        let (width, height) = (self.width as f32, self.height as f32);
        let step = (width / WIDTH as f32).min(height / HEIGHT as f32);
        let left = (width - step * WIDTH as f32) / 2.0;
        let top = (height - step * HEIGHT as f32) / 2.0;
        // The position among `size` samples that pixel `index` begins at, and how far it reaches
        // into the next one.
        let place = |start: f32, index: usize, size: usize| {
            let at = (start + step * (index as f32 + 0.5) - 0.5).clamp(0.0, (size - 1) as f32);
            let whole = at as usize;
            (whole, (whole + 1).min(size - 1), at - at.floor())
        };
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        for row in 0..HEIGHT {
            let (above, below, down) = place(top, row, self.height);
            for column in 0..WIDTH {
                let (before, after, across) = place(left, column, self.width);
                for channel in 0..CHANNELS {
                    let sample = |row: usize, column: usize| {
                        f32::from(self.bytes[(row * self.width + column) * CHANNELS + channel])
                    };
                    let upper = between(sample(above, before), sample(above, after), across);
                    let lower = between(sample(below, before), sample(below, after), across);
                    frame.push(between(upper, lower, down).round() as u8);
                }
            }
        }
        frame
    }
}

fn between(one: f32, other: f32, share: f32) -> f32 {
    one + (other - one) * share
}

#[cfg(test)]
mod tests {
    use super::{
        CHANNELS, FRAME_BYTES, HEIGHT, Photograph, Pixels, ROW_BYTES, WIDTH, decode_jpeg,
        decode_png,
    };

    fn png(width: u32, height: u32, color: png::ColorType, samples: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(samples).unwrap();
        file
    }

    #[test]
    fn every_kind_of_png_becomes_rgb() {
        let rgb = [9, 8, 7];
        let kinds: [(png::ColorType, &[u8], [u8; 3]); 4] = [
            (png::ColorType::Rgb, &rgb, rgb),
            (png::ColorType::Rgba, &[9, 8, 7, 255], rgb),
            (png::ColorType::Grayscale, &[5], [5; 3]),
            (png::ColorType::GrayscaleAlpha, &[5, 0], [5; 3]),
        ];
        for (color, samples, expected) in kinds {
            assert_eq!(decode_png(&png(1, 1, color, samples)).unwrap().bytes, expected);
        }
        assert!(decode_png(b"\x89PNG and nothing more").is_err());
    }

    /// 8 x 8 pixels, all of grey 200: what a JPEG encoder makes of them, without the optional parts.
    const GREY_JPEG: &[u8] = b"\
        \xff\xd8\xff\xdb\x00\x43\x00\x03\x02\x02\x03\x02\x02\x03\x03\x03\x03\x04\x03\x03\
        \x04\x05\x08\x05\x05\x04\x04\x05\x0a\x07\x07\x06\x08\x0c\x0a\x0c\x0c\x0b\x0a\x0b\
        \x0b\x0d\x0e\x12\x10\x0d\x0e\x11\x0e\x0b\x0b\x10\x16\x10\x11\x13\x14\x15\x15\x15\
        \x0c\x0f\x17\x18\x16\x14\x18\x12\x14\x15\x14\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\
        \x01\x01\x11\x00\xff\xc4\x00\x14\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00\x00\x00\x00\x00\x08\xff\xc4\x00\x14\x10\x01\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00\x00\x00\x00\x00\x00\x00\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x60\x3f\
        \xff\xd9\
    ";

    #[test]
    fn a_grey_jpeg_becomes_rgb() {
        let pixels = decode_jpeg(GREY_JPEG).unwrap();
        assert_eq!((pixels.width, pixels.height), (8, 8));
        assert_eq!(pixels.bytes, [200; 8 * 8 * CHANNELS]);
        assert!(decode_jpeg(&GREY_JPEG[..40]).is_err());
    }

    #[test]
    fn a_frame_of_the_right_size_stays_as_it_is() {
        let bytes: Vec<u8> = (0..FRAME_BYTES).map(|index| (index % 251) as u8).collect();
        let pixels = Pixels { width: WIDTH, height: HEIGHT, bytes: bytes.clone() };
        assert!(pixels.cover() == bytes);
    }

    #[test]
    fn any_size_covers_the_frame_from_its_middle() {
        // Left half black, right half white, much too wide.
        let (width, height) = (100, 10);
        let row: Vec<u8> =
            (0..width).flat_map(|x| [if x < width / 2 { 0 } else { 255 }; CHANNELS]).collect();
        let frame = Pixels { width, height, bytes: row.repeat(height) }.cover();
        assert_eq!(frame.len(), FRAME_BYTES);
        for row in frame.chunks(ROW_BYTES) {
            assert_eq!((row[0], row[ROW_BYTES - 1]), (0, 255));
            let dark = row.iter().filter(|sample| **sample < 128).count();
            assert_eq!(dark, ROW_BYTES / 2);
        }
    }

    #[test]
    fn scrolling_turns_the_rows() {
        let rows = (0..HEIGHT).flat_map(|row| vec![(row % 251) as u8; ROW_BYTES]);
        let photograph = Photograph(rows.collect());
        let scrolled = photograph.scrolled(HEIGHT + 3);
        assert_eq!(scrolled.upper.len() + scrolled.lower.len(), FRAME_BYTES);
        assert_eq!((scrolled.upper[0], scrolled.lower[0]), (3, 0));
    }
}
