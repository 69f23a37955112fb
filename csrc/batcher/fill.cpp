#include "batcher/fill.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "common/crc32c.h"
#include "batcher/gather.h"

namespace ttsfast {
namespace {

// Values read from a file at once: 128 KiB, which leaves room in a core's second cache for what they become.
constexpr std::size_t kPiece = std::size_t(1) << 16;

// All of the bytes, or why not. Reading, where a map would be cheaper by the copy: a map of a file that
// someone shortens kills the process at the next touch, and no check beforehand can exclude it.
Failure read_fully(const File& file, std::uint64_t offset, void* to, std::size_t bytes, std::int64_t utterance) {
  auto* out = static_cast<unsigned char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file.descriptor(), out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {Fault::unreadable, utterance, std::system_category().message(errno)};
    if (got == 0) {
      struct stat now {};
      const bool known = fstat(file.descriptor(), &now) == 0;
      return {Fault::shortened, utterance, known ? std::to_string(now.st_size) : "fewer"};
    }
    out += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
  return {};
}

void will_need(const File& file, std::uint64_t offset, std::uint64_t bytes) {
#if defined(POSIX_FADV_WILLNEED)
  // Advice: where it is refused the read itself fetches.
  (void)posix_fadvise(file.descriptor(), static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
#else
  (void)file, (void)offset, (void)bytes;
#endif
}

// Of silence, in the format's element.
std::vector<unsigned char> one_frame(const Format& format) {
  std::vector<unsigned char> frame(format.silence.size() * element_bytes(format.element));
  round_float(format.silence.data(), format.element, frame.data(), format.silence.size());
  return frame;
}

template <typename T>
void write_row(unsigned char* array, std::size_t row, T value) {
  std::memcpy(array + row * sizeof(T), &value, sizeof(T));
}

}  // namespace

Filler::Filler(const Table& table, const Format& format)
    : table_(table),
      format_(format),
      frame_bytes_(table.bins() * element_bytes(format.element)),
      silence_(one_frame(format).data(), frame_bytes_) {}

Failure Filler::fill(const std::vector<std::int64_t>& utterances, const Layout& layout, unsigned char* slot) {
  Failure failure = write(utterances, layout, slot);
  end_streaming();
  return failure;
}

Failure Filler::write(const std::vector<std::int64_t>& utterances, const Layout& layout, unsigned char* slot) {
  const bool streaming = streams(layout.bytes);
  // The last two have no place in a batch without targets, and nothing is written to them.
  Lines text(slot + layout.text, streaming);
  Lines frame_mask(slot + layout.frame_mask, streaming), stop_targets(slot + layout.stop_targets, streaming);
  for (std::size_t row = 0; row < utterances.size(); ++row) {
    const std::int64_t index = utterances[row];
    const Utterance& utterance = table_[index];
    checking_ = !table_.checked(index);
    crc_ = 0;
    unsigned char* mel = slot + layout.mel + row * layout.frames * frame_bytes_;
    Failure failure = read_mel(index, utterance, mel, streaming);
    if (failure.fault == Fault::none) failure = read_text(index, utterance, layout.symbols, text);
    if (failure.fault != Fault::none) return failure;
    if (checking_) table_.set_checked(index);
    silence_.write(mel + utterance.frames * frame_bytes_, (layout.frames - utterance.frames) * frame_bytes_,
                   streaming);
    write_row(slot + layout.text_lengths, row, static_cast<std::int64_t>(utterance.symbols));
    write_row(slot + layout.mel_lengths, row, static_cast<std::int64_t>(utterance.frames));
    write_row(slot + layout.speaker, row, utterance.speaker);
    write_row(slot + layout.truncated, row, static_cast<std::uint8_t>(utterance.truncated));
    if (format_.targets) {
      write_frame_mask(utterance.frames, layout.frames, frame_mask);
      write_stop_targets(utterance.frames, utterance.truncated, layout.frames, stop_targets);
    }
  }
  return {};
}

Failure Filler::read_mel(std::int64_t index, const Utterance& utterance, unsigned char* to, bool streaming) {
  const Shard& shard = table_.shard_of(utterance);
  const std::size_t bins = table_.bins(), width = element_bytes(format_.element);
  const std::size_t values = utterance.frames * bins;
  const std::uint64_t start = static_cast<std::uint64_t>(utterance.offset) * bins * 2;
  if (shard.mel.memory != nullptr) {
    const unsigned char* from = shard.mel.memory + start;
    if (checking_) crc_ = crc32c(crc_, from, values * 2);
    convert_half(reinterpret_cast<const std::uint16_t*>(from), format_.element, to, values, streaming);
    return {};
  }
  if (format_.element != Element::f16 && halves_.size() < std::min(kPiece, values))
    halves_.resize(std::min(kPiece, values));
  for (std::size_t done = 0; done < values;) {
    const std::size_t piece = std::min(kPiece, values - done);
    // What is kept as it is read needs no second copy.
    void* into = format_.element == Element::f16 ? static_cast<void*>(to + done * 2) : halves_.data();
    Failure failure = read_fully(*shard.file, shard.mel.offset + start + done * 2, into, piece * 2, index);
    if (failure.fault != Fault::none) return failure;
    if (checking_) crc_ = crc32c(crc_, into, piece * 2);
    if (into == halves_.data()) convert_half(halves_.data(), format_.element, to + done * width, piece, streaming);
    done += piece;
  }
  return {};
}

Failure Filler::read_text(std::int64_t index, const Utterance& utterance, std::size_t padded, Lines& to) {
  const Shard& shard = table_.shard_of(utterance);
  const std::size_t count = utterance.symbols;
  const std::uint64_t start = static_cast<std::uint64_t>(utterance.text_offset) * 4;
  if (symbols_.size() < count) symbols_.resize(count);
  if (count > 0 && shard.text.memory != nullptr) {
    std::memcpy(symbols_.data(), shard.text.memory + start, count * 4);
  } else if (count > 0) {
    Failure failure = read_fully(*shard.file, shard.text.offset + start, symbols_.data(), count * 4, index);
    if (failure.fault != Fault::none) return failure;
  }
  if (checking_ && crc32c(crc_, symbols_.data(), count * 4) != utterance.crc32c) return {Fault::checksum, index, ""};
  // Two loops that become vectors: nothing is decided, and nothing but symbols is read, in either.
  const std::int32_t* const symbols = symbols_.data();
  const auto past = static_cast<std::uint32_t>(table_.alphabet() - 1);
  bool bad = false;
  for (std::size_t i = 0; i < count; ++i) bad |= static_cast<std::uint32_t>(symbols[i]) - 1u >= past;
  if (bad) {
    const auto* found = std::find_if(symbols, symbols + count, [&](std::int32_t symbol) {
      return static_cast<std::uint32_t>(symbol) - 1u >= past;
    });
    return {Fault::symbol, index, std::to_string(*found)};
  }
  for (std::size_t done = 0; done < count;) {
    const auto [wide, here] = to.next<std::int64_t>(count - done);
    for (std::size_t i = 0; i < here; ++i) wide[i] = symbols[done + i];
    done += here;
  }
  to.repeat<std::int64_t>(0, padded - count);
  return {};
}

void Filler::advise(const std::vector<std::int64_t>& utterances) const {
  for (const std::int64_t index : utterances) {
    const Utterance& utterance = table_[index];
    const Shard& shard = table_.shard_of(utterance);
    if (shard.mel.memory != nullptr || shard.file == nullptr) continue;
    const std::uint64_t frame = table_.bins() * 2;
    will_need(*shard.file, shard.mel.offset + static_cast<std::uint64_t>(utterance.offset) * frame,
              utterance.frames * frame);
    will_need(*shard.file, shard.text.offset + static_cast<std::uint64_t>(utterance.text_offset) * 4,
              std::uint64_t(utterance.symbols) * 4);
  }
}

}  // namespace ttsfast
