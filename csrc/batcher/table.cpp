#include "batcher/table.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>

namespace ttsfast {
namespace {

// No number from outside is multiplied or added before it is below this, so nothing wraps: 2^47 rows of 2^13
// bins of 2 bytes are 2^61.
constexpr std::int64_t kMostRows = std::int64_t(1) << 47;
constexpr std::int64_t kMostBins = std::int64_t(1) << 13;

bool inside(std::int64_t begin, std::int64_t count, std::int64_t size) {
  return begin >= 0 && count >= 0 && begin <= size && count <= size - begin;
}

std::string span(const char* unit, std::int64_t begin, std::int64_t count, std::int64_t size) {
  return std::to_string(count) + " " + unit + " from " + std::to_string(begin) + " on, in a shard of " +
         std::to_string(size);
}

void check_bins(std::int64_t bins) {
  if (bins < 1 || bins > kMostBins) throw std::invalid_argument("impossible number of bins");
}

// Where `count` items of `width` bytes begin.
const unsigned char* part(const unsigned char* content, std::uint64_t bytes, std::uint64_t begin, std::int64_t count,
                          std::uint64_t width) {
  if (begin > bytes || count < 0 || static_cast<std::uint64_t>(count) > (bytes - begin) / width)
    throw std::invalid_argument("a shard in memory ends before its arrays do");
  return content + begin;
}

void check_shard(const Shard& shard, std::size_t number) {
  const std::string which = "shard " + std::to_string(number) + ": ";
  if (shard.rows < 0 || shard.rows > kMostRows || shard.symbols < 0 || shard.symbols > kMostRows)
    throw std::invalid_argument(which + "impossible size");
  for (const Extent* extent : {&shard.mel, &shard.text}) {
    const bool empty = (extent == &shard.mel ? shard.rows : shard.symbols) == 0;
    if (extent->memory == nullptr && shard.file == nullptr && !empty)
      throw std::invalid_argument(which + "neither in memory nor in a file");
    if (extent->offset > static_cast<std::uint64_t>(kMostRows))
      throw std::invalid_argument(which + "impossible place in the file");
  }
}

}  // namespace

File::File(int descriptor) : descriptor_(fcntl(descriptor, F_DUPFD_CLOEXEC, 0)) {
  if (descriptor_ < 0) throw std::runtime_error(std::system_category().message(errno));
}

File::~File() { close(descriptor_); }

void place_in_memory(Shard& shard, const unsigned char* content, std::uint64_t bytes, std::int64_t bins) {
  check_bins(bins);
  shard.mel.memory = part(content, bytes, shard.mel.offset, shard.rows, static_cast<std::uint64_t>(bins) * 2);
  shard.text.memory = part(content, bytes, shard.text.offset, shard.symbols, 4);
}

Table::Table(std::vector<Shard> shards, const Columns& columns, std::int64_t bins, std::int64_t alphabet, bool verify)
    : shards_(std::move(shards)), bins_(static_cast<std::size_t>(bins)), alphabet_(alphabet) {
  const std::size_t count = columns.shard.size();
  for (const auto* column : {&columns.offset, &columns.frames, &columns.text_offset, &columns.symbols,
                             &columns.speaker, &columns.crc32c})
    if (column->size() != count) throw std::invalid_argument("columns of unlike lengths");
  if (columns.truncated.size() != count) throw std::invalid_argument("columns of unlike lengths");
  check_bins(bins);
  if (alphabet < 1 || alphabet > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("impossible number of symbols");
  for (std::size_t i = 0; i < shards_.size(); ++i) check_shard(shards_[i], i);
  utterances_.reserve(count);
  constexpr std::int64_t kMost32 = std::numeric_limits<std::uint32_t>::max();
  for (std::size_t i = 0; i < count; ++i) {
    const auto which = static_cast<std::int64_t>(i);
    if (columns.shard[i] < 0 || columns.shard[i] >= static_cast<std::int64_t>(shards_.size()))
      throw BadUtterance(which, "shard " + std::to_string(columns.shard[i]) + " of " +
                                    std::to_string(shards_.size()));
    const Shard& shard = shards_[static_cast<std::size_t>(columns.shard[i])];
    if (!inside(columns.offset[i], columns.frames[i], shard.rows) || columns.frames[i] > kMost32)
      throw BadUtterance(which, span("frames", columns.offset[i], columns.frames[i], shard.rows));
    if (!inside(columns.text_offset[i], columns.symbols[i], shard.symbols) || columns.symbols[i] > kMost32)
      throw BadUtterance(which, span("symbols", columns.text_offset[i], columns.symbols[i], shard.symbols));
    if (columns.crc32c[i] < 0 || columns.crc32c[i] > kMost32) throw BadUtterance(which, "impossible checksum");
    utterances_.push_back({columns.offset[i], columns.text_offset[i], columns.speaker[i],
                           static_cast<std::uint32_t>(columns.shard[i]),
                           static_cast<std::uint32_t>(columns.frames[i]),
                           static_cast<std::uint32_t>(columns.symbols[i]),
                           static_cast<std::uint32_t>(columns.crc32c[i]), columns.truncated[i] != 0});
  }
  checked_ = std::vector<std::atomic<bool>>(count);
  for (auto& flag : checked_) flag.store(!verify);
}

}  // namespace ttsfast
