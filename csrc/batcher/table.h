// What the batcher knows of a store: its shards and where in them each utterance lies. Everything in it has
// been checked against the others, so whoever reads by it stays inside the files.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ttsfast {

// An own descriptor of an open file, closed with its last owner.
class File {
 public:
  // A duplicate of somebody else's. Throws std::runtime_error where there is none to be had.
  explicit File(int descriptor);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

// One array of a shard: bytes in memory, or a part of a file.
struct Extent {
  const unsigned char* memory = nullptr;  // null: in the file
  std::uint64_t offset = 0;               // in the file
};

struct Shard {
  std::shared_ptr<const File> file;  // null: in memory, which the caller keeps alive
  Extent mel;                        // (rows, bins) binary16
  Extent text;                       // (symbols,) int32
  std::int64_t rows = 0;
  std::int64_t symbols = 0;
};

// Let the shard's arrays lie in `content`, at the offsets and of the sizes that it has already. Throws
// std::invalid_argument where they do not fit into it.
void place_in_memory(Shard& shard, const unsigned char* content, std::uint64_t bytes, std::int64_t bins);

// The utterances, as the manifest lists them.
struct Columns {
  std::vector<std::int64_t> shard, offset, frames, text_offset, symbols, speaker, crc32c;
  std::vector<std::uint8_t> truncated;
};

struct Utterance {
  std::int64_t offset, text_offset, speaker;
  std::uint32_t shard, frames, symbols, crc32c;
  bool truncated;
};

// Which utterance is not inside its shard, and why.
struct BadUtterance : std::runtime_error {
  BadUtterance(std::int64_t which, const std::string& why) : std::runtime_error(why), utterance(which) {}
  std::int64_t utterance;
};

class Table {
 public:
  // Throws BadUtterance, or std::invalid_argument for columns of unlike lengths or impossible shards.
  // `alphabet` is the number of symbols: a text's are from 1 to alphabet - 1. `verify` asks for each
  // utterance's CRC32C to be checked when it is first read.
  Table(std::vector<Shard> shards, const Columns& columns, std::int64_t bins, std::int64_t alphabet, bool verify);

  std::int64_t size() const { return static_cast<std::int64_t>(utterances_.size()); }
  std::size_t bins() const { return bins_; }
  std::int64_t alphabet() const { return alphabet_; }
  const Utterance& operator[](std::int64_t index) const { return utterances_[static_cast<std::size_t>(index)]; }
  const Shard& shard_of(const Utterance& utterance) const { return shards_[utterance.shard]; }

  // Two threads that read an utterance for the first time at once both check it, which is harmless.
  bool checked(std::int64_t index) const { return checked_[static_cast<std::size_t>(index)].load(); }
  void set_checked(std::int64_t index) const { checked_[static_cast<std::size_t>(index)].store(true); }

 private:
  std::vector<Shard> shards_;
  std::vector<Utterance> utterances_;
  std::size_t bins_;
  std::int64_t alphabet_;
  mutable std::vector<std::atomic<bool>> checked_;
};

}  // namespace ttsfast
