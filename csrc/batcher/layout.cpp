#include "batcher/layout.h"

#include <algorithm>
#include <stdexcept>

namespace ttsfast {
namespace {

constexpr std::size_t kMostBytes = std::size_t(1) << 40;
constexpr std::size_t kMostPadding = std::size_t(1) << 20;

// Counts up the bytes of one array after another, and refuses to pass the limit.
class Cursor {
 public:
  std::size_t take(std::size_t rows, std::size_t columns, std::size_t width) {
    const std::size_t start = at_;
    if (rows > kMostBytes / width / std::max<std::size_t>(columns, 1)) refuse();
    at_ += (rows * columns * width + 63) / 64 * 64;
    if (at_ > kMostBytes) refuse();
    return start;
  }
  std::size_t total() const { return at_; }

 private:
  [[noreturn]] static void refuse() { throw std::invalid_argument("a batch of more than 2^40 bytes"); }
  std::size_t at_ = 0;
};

std::size_t round_up(std::size_t count, std::size_t multiple) { return (count + multiple - 1) / multiple * multiple; }

}  // namespace

void check_format(const Format& format, std::size_t bins) {
  if (format.silence.size() != bins) throw std::invalid_argument("silence must have one value per bin");
  if (format.tail_frames > kMostPadding) throw std::invalid_argument("impossible tail_frames");
  for (const std::size_t multiple : {format.frame_multiple, format.text_multiple})
    if (multiple < 1 || multiple > kMostPadding) throw std::invalid_argument("impossible multiple to pad to");
}

Layout plan_layout(const Table& table, const Format& format, const std::vector<std::int64_t>& utterances) {
  if (utterances.empty()) throw std::invalid_argument("a batch without utterances");
  Layout layout;
  layout.utterances = utterances.size();
  for (const std::int64_t index : utterances) {
    if (index < 0 || index >= table.size())
      throw std::invalid_argument("utterance " + std::to_string(index) + " of " + std::to_string(table.size()));
    layout.frames = std::max<std::size_t>(layout.frames, table[index].frames);
    layout.symbols = std::max<std::size_t>(layout.symbols, table[index].symbols);
    layout.valid_frames += table[index].frames;
  }
  layout.frames = round_up(layout.frames + format.tail_frames, format.frame_multiple);
  layout.symbols = round_up(layout.symbols, format.text_multiple);
  const std::size_t rows = layout.utterances;
  Cursor cursor;
  layout.mel = cursor.take(rows, layout.frames, table.bins() * element_bytes(format.element));
  layout.text = cursor.take(rows, layout.symbols, sizeof(std::int64_t));
  layout.text_lengths = cursor.take(rows, 1, sizeof(std::int64_t));
  layout.mel_lengths = cursor.take(rows, 1, sizeof(std::int64_t));
  layout.speaker = cursor.take(rows, 1, sizeof(std::int64_t));
  layout.truncated = cursor.take(rows, 1, 1);
  if (format.targets) {
    layout.frame_mask = cursor.take(rows, layout.frames, 1);
    layout.stop_targets = cursor.take(rows, layout.frames, sizeof(float));
  }
  layout.bytes = cursor.total();
  return layout;
}

}  // namespace ttsfast
