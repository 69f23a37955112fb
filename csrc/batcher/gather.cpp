#include "batcher/gather.h"

#include <algorithm>

namespace ttsfast {

Repeated::Repeated(const void* unit, std::size_t period) {
  constexpr std::size_t kBlock = 8192;
  const auto* from = static_cast<const unsigned char*>(unit);
  for (std::size_t size = 0; period > 0 && size < kBlock; size += period)
    block_.insert(block_.end(), from, from + period);
}

void Repeated::write(void* out, std::size_t bytes, bool streaming) const {
  auto* to = static_cast<unsigned char*>(out);
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t part = std::min(block_.size(), bytes - done);
    copy_bytes(block_.data(), to + done, part, streaming);
    done += part;
  }
}

void gather_frames(const std::vector<Frames>& batch, std::size_t padded, std::size_t bins, const float* pad,
                   float* out) {
  const bool streaming = streams(batch.size() * padded * bins * sizeof(float));
  const Repeated padding(pad, bins * sizeof(float));
  for (const Frames& utterance : batch) {
    const std::size_t values = utterance.frames * bins;
    if (utterance.half) {
      convert_half(static_cast<const std::uint16_t*>(utterance.data), Element::f32, out, values, streaming);
    } else {
      copy_bytes(utterance.data, out, values * sizeof(float), streaming);
    }
    padding.write(out + values, (padded - utterance.frames) * bins * sizeof(float), streaming);
    out += padded * bins;
  }
}

void Lines::flush() {
  copy_bytes(piece_, out_, held_, streaming_);
  out_ += held_;
  held_ = 0;
}

void write_frame_mask(std::size_t frames, std::size_t padded, Lines& out) {
  out.repeat<std::uint8_t>(1, frames);
  out.repeat<std::uint8_t>(0, padded - frames);
}

void write_stop_targets(std::size_t frames, bool truncated, std::size_t padded, Lines& out) {
  const std::size_t last = std::min(truncated ? padded : frames > 0 ? frames - 1 : 0, padded);
  out.repeat<float>(0, last);
  out.repeat<float>(1, padded - last);
}

}  // namespace ttsfast
