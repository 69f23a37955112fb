#include "gather.h"

#include <algorithm>
#include <cstring>

namespace ttsfast {

void fill_rows(const void* row, std::size_t row_bytes, std::size_t rows, void* out, bool streaming) {
  auto* to = static_cast<unsigned char*>(out);
  // Not memcpy for each row: a call for a few hundred bytes costs as much as their copy.
  const std::size_t total = rows * row_bytes;
  const std::size_t first = std::min(row_bytes, total);
  if (first == 0) return;
  copy_bytes(row, to, first, false);
  if (streaming) {
    for (std::size_t done = first; done < total; done += row_bytes) copy_bytes(row, to + done, row_bytes, true);
    return;
  }
  // What is written doubles, up to a block that stays in the nearest cache.
  constexpr std::size_t kBlock = 8192;
  std::size_t done = first;
  while (done < total) {
    const std::size_t whole = std::min(done, std::max(kBlock / row_bytes, std::size_t(1)) * row_bytes);
    const std::size_t part = std::min(whole, total - done);
    std::memcpy(to + done, to, part);
    done += part;
  }
}

void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out) {
  const bool streaming = batch.size() * padded * bins * sizeof(float) >= kStreamFrom;
  for (const Frames& utterance : batch) {
    const std::size_t values = utterance.frames * bins;
    if (utterance.half) {
      convert_half(static_cast<const std::uint16_t*>(utterance.data), Element::f32, out, values, streaming);
    } else {
      copy_bytes(utterance.data, out, values * sizeof(float), streaming);
    }
    fill_rows(pad, bins * sizeof(float), padded - utterance.frames, out + values, streaming);
    out += padded * bins;
  }
  end_streaming();
}

void write_frame_mask(std::size_t frames, std::size_t padded, std::uint8_t* out) {
  std::fill(out, out + frames, std::uint8_t(1));
  std::fill(out + frames, out + padded, std::uint8_t(0));
}

void write_stop_targets(std::size_t frames, bool truncated, std::size_t padded, float* out) {
  const std::size_t last = truncated ? padded : frames > 0 ? frames - 1 : 0;
  std::fill(out, out + std::min(last, padded), 0.0f);
  std::fill(out + std::min(last, padded), out + padded, 1.0f);
}

}  // namespace ttsfast
