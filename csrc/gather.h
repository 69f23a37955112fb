// Ragged utterances into one padded batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ttsfast {

// One utterance's frames, (frames, bins) in row-major order.
struct Frames {
  const void* data;
  std::size_t frames;
  bool half;  // IEEE binary16; otherwise float
};

// IEEE binary16 to float, exactly (subnormals, infinities and NaN payloads included).
void half_to_float(const std::uint16_t* from, float* to, std::size_t count);

// The same without vector instructions, whatever the processor has.
void half_to_float_scalar(const std::uint16_t* from, float* to, std::size_t count);

// "f16c", "neon" or "scalar": what half_to_float() uses on this processor.
const char* half_implementation();

// Write utterance b into out[b, :frames_b, :] and pad[:] into every later frame.
// out is (batch.size(), padded, bins); the caller has checked that frames_b <= padded for each b.
void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out);

}  // namespace ttsfast
