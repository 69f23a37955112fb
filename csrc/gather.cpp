#include "gather.h"

#include <algorithm>
#include <cstring>

namespace ttsfast {

void fill_rows(const void* row, std::size_t row_bytes, std::size_t rows, void* out, bool streaming) {
  auto* to = static_cast<unsigned char*>(out);
  const std::size_t total = rows * row_bytes;
  if (total == 0) return;
  std::memcpy(to, row, row_bytes);
  // A call for each row would cost as much as its copy, so what is written doubles, up to a block that stays in
  // the nearest cache and is then copied from.
  const std::size_t block = std::max<std::size_t>(8192 / row_bytes, 1) * row_bytes;
  for (std::size_t done = row_bytes; done < total;) {
    const std::size_t part = std::min({done, block, total - done});
    copy_bytes(to, to + done, part, streaming && done >= block);
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
