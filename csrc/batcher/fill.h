// One batch from the store into its slot: the work of one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "batcher/layout.h"
#include "batcher/table.h"
#include "batcher/gather.h"

namespace ttsfast {

enum class Fault : std::uint8_t { none, checksum, symbol, shortened, unreadable, memory };

struct Failure {
  Fault fault = Fault::none;
  std::int64_t utterance = -1;  // -1: of the batch as a whole
  std::string detail;           // the system's reason, where there is one
};

// Fills batches; holds what a thread reuses from one to the next.
class Filler {
 public:
  Filler(const Table& table, const Format& format);

  // Write the batch into `slot`, layout.bytes long; every byte that the layout gives an array is written. On
  // failure the slot's content means nothing.
  Failure fill(const std::vector<std::int64_t>& utterances, const Layout& layout, unsigned char* slot);

  // Ask the system to read these utterances ahead; files only.
  void advise(const std::vector<std::int64_t>& utterances) const;

 private:
  Failure write(const std::vector<std::int64_t>& utterances, const Layout& layout, unsigned char* slot);
  Failure read_mel(std::int64_t index, const Utterance& utterance, unsigned char* to, bool streaming);
  Failure read_text(std::int64_t index, const Utterance& utterance, std::size_t padded, Lines& to);

  const Table& table_;
  const Format& format_;
  std::size_t frame_bytes_;  // of the format's element
  Repeated silence_;         // frames
  std::vector<std::uint16_t> halves_;   // a piece of a file, small enough for the core's own cache
  std::vector<std::int32_t> symbols_;
  bool checking_ = false;
  std::uint32_t crc_ = 0;
};

}  // namespace ttsfast
