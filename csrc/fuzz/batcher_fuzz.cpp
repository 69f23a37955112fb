// libFuzzer harness of what the batcher is told by files: shards, utterances, formats, batches, and contents
// that are not what was promised. Whatever it is given it must refuse, report as a failed batch, or make the
// batch that a plain loop makes. Build and run: see csrc/fuzz/README.md.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "batcher/batcher.h"
#include "common/crc32c.h"

namespace {

using namespace ttsfast;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

// Mostly near what is valid, sometimes anything.
std::int64_t number(FuzzedDataProvider& data, std::int64_t likely) {
  return data.ConsumeIntegralInRange(0, 31) != 0 ? data.ConsumeIntegralInRange<std::int64_t>(0, likely)
                                                 : data.ConsumeIntegral<std::int64_t>();
}

// One file for all runs: making one costs more than a run.
int the_file() {
  static const int descriptor = memfd_create("shard", 0);
  return descriptor;
}


float as_float(const unsigned char* from) {
  const int bits = from[0] | from[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
  float value = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), std::max(exponent, 1) - 25);
  if (exponent == 31) value = fraction ? std::nanf("") : HUGE_VALF;
  return bits & 0x8000 ? -value : value;
}

struct Case {
  std::vector<Shard> shards;
  std::vector<std::vector<unsigned char>> contents;
  Columns columns;
  Format format;
  std::int64_t bins, alphabet;
  bool verify;
};

void compare_mel(const Case& made, const Utterance& utterance, const Layout& layout, std::size_t row,
                 const unsigned char* slot) {
  const auto bins = static_cast<std::size_t>(made.bins);
  const std::size_t width = element_bytes(made.format.element);
  const auto& content = made.contents[utterance.shard];
  const Shard& shard = made.shards[utterance.shard];
  for (std::size_t t = 0; t < layout.frames; ++t)
    for (std::size_t c = 0; c < bins; ++c) {
      const std::size_t source = shard.mel.offset + ((static_cast<std::size_t>(utterance.offset) + t) * bins + c) * 2;
      if (t < utterance.frames) require(source + 2 <= content.size());
      const float value = t < utterance.frames ? as_float(content.data() + source) : made.format.silence[c];
      const unsigned char* found = slot + layout.mel + ((row * layout.frames + t) * bins + c) * width;
      float written;
      if (made.format.element == Element::f32) {
        std::memcpy(&written, found, 4);
      } else if (made.format.element == Element::f16) {
        written = as_float(found);
      } else {
        const std::uint32_t bits = std::uint32_t(found[0]) << 16 | std::uint32_t(found[1]) << 24;
        std::memcpy(&written, &bits, 4);
      }
      if (std::isnan(value)) {
        require(std::isnan(written));
      } else if (made.format.element == Element::bf16) {
        require(written == value || std::fabs(written - value) <= std::fabs(value) / 256);
      } else {
        require(std::memcmp(&written, &value, 4) == 0);
      }
    }
}

template <typename T>
T at(const unsigned char* slot, std::size_t array, std::size_t index) {
  T value;
  std::memcpy(&value, slot + array + index * sizeof(T), sizeof(T));
  return value;
}

void compare(const Case& made, const Table& table, const std::vector<std::int64_t>& batch, const Layout& layout,
             const unsigned char* slot) {
  for (std::size_t row = 0; row < batch.size(); ++row) {
    const Utterance& utterance = table[batch[row]];
    const auto& content = made.contents[utterance.shard];
    compare_mel(made, utterance, layout, row, slot);
    // Where nothing is read, nothing need be there.
    const auto part = [&](std::size_t first, std::size_t count) {
      require(count == 0 || (first <= content.size() && count <= content.size() - first));
      return count == 0 ? nullptr : content.data() + first;
    };
    const Shard& shard = made.shards[utterance.shard];
    const std::size_t frame = static_cast<std::size_t>(made.bins) * 2, text_bytes = utterance.symbols * std::size_t(4);
    const std::size_t mel = shard.mel.offset + static_cast<std::size_t>(utterance.offset) * frame;
    const std::size_t text = shard.text.offset + static_cast<std::size_t>(utterance.text_offset) * 4;
    std::uint32_t crc = crc32c_table(0, part(mel, utterance.frames * frame), utterance.frames * frame);
    crc = crc32c_table(crc, part(text, text_bytes), text_bytes);
    require(!made.verify || crc == utterance.crc32c);
    for (std::size_t n = 0; n < layout.symbols; ++n) {
      std::int32_t symbol = 0;
      if (n < utterance.symbols) std::memcpy(&symbol, content.data() + text + n * 4, 4);
      require(n >= utterance.symbols || (symbol >= 1 && symbol < made.alphabet));
      require(at<std::int64_t>(slot, layout.text, row * layout.symbols + n) == symbol);
    }
    require(at<std::int64_t>(slot, layout.mel_lengths, row) == utterance.frames);
    require(at<std::int64_t>(slot, layout.text_lengths, row) == utterance.symbols);
    require(at<std::int64_t>(slot, layout.speaker, row) == utterance.speaker);
    require(at<std::uint8_t>(slot, layout.truncated, row) == utterance.truncated);
    for (std::size_t t = 0; made.format.targets && t < layout.frames; ++t) {
      require(at<std::uint8_t>(slot, layout.frame_mask, row * layout.frames + t) == (t < utterance.frames));
      const bool stop = !utterance.truncated && t + 1 >= utterance.frames;
      require(at<float>(slot, layout.stop_targets, row * layout.frames + t) == float(stop));
    }
  }
}

Case drawn(FuzzedDataProvider& data) {
  Case made;
  made.bins = number(data, 9);
  made.alphabet = number(data, 40);
  made.verify = data.ConsumeBool();
  bool file_is_used = false;
  for (int count = data.ConsumeIntegralInRange(0, 3); count > 0; --count) {
    Shard shard;
    shard.rows = number(data, 12);
    shard.symbols = number(data, 12);
    shard.mel.offset = static_cast<std::uint64_t>(number(data, 8));
    shard.text.offset = static_cast<std::uint64_t>(number(data, 256));
    std::vector<unsigned char> content(data.ConsumeIntegralInRange<std::size_t>(0, 300));
    const std::vector<unsigned char> pattern = data.ConsumeBytes<unsigned char>(40);
    for (std::size_t i = 0; i < content.size() && !pattern.empty(); ++i) content[i] = pattern[i % pattern.size()];
    // Texts are whole numbers of a small alphabet, or nothing would ever be accepted. The first comparison, since
    // an offset near 2^64 would wrap in the second.
    const std::uint64_t begin = shard.text.offset, size = content.size();
    if (data.ConsumeBool())
      for (std::size_t i = 0; begin < size && begin + i * 4 + 4 <= size && i < 32; ++i) {
        const std::int32_t symbol = 1 + static_cast<std::int32_t>(i % 7);
        std::memcpy(content.data() + begin + i * 4, &symbol, 4);
      }
    made.contents.push_back(std::move(content));
    const auto& kept = made.contents.back();
    if (!file_is_used && data.ConsumeBool()) {
      file_is_used = true;
      require(ftruncate(the_file(), 0) == 0);
      require(pwrite(the_file(), kept.data(), kept.size(), 0) == static_cast<ssize_t>(kept.size()));
      shard.file = std::make_shared<const File>(the_file());
    } else {
      place_in_memory(shard, kept.data(), kept.size(), made.bins);
    }
    made.shards.push_back(std::move(shard));
  }
  const auto utterances = data.ConsumeIntegralInRange<std::size_t>(0, 6);
  for (std::size_t i = 0; i < utterances; ++i) {
    made.columns.shard.push_back(number(data, static_cast<std::int64_t>(made.shards.size())));
    made.columns.offset.push_back(number(data, 6));
    made.columns.frames.push_back(number(data, 7));
    made.columns.text_offset.push_back(number(data, 6));
    made.columns.symbols.push_back(number(data, 7));
    made.columns.speaker.push_back(data.ConsumeIntegral<std::int64_t>());
    made.columns.crc32c.push_back(data.ConsumeIntegralInRange<std::int64_t>(-1, std::int64_t(1) << 32));
    made.columns.truncated.push_back(data.ConsumeBool());
  }
  if (data.ConsumeIntegralInRange(0, 31) == 0) made.columns.speaker.resize(made.columns.speaker.size() / 2);
  made.format.element = static_cast<Element>(data.ConsumeIntegralInRange(0, 2));
  made.format.tail_frames = static_cast<std::size_t>(number(data, 9));
  made.format.frame_multiple = static_cast<std::size_t>(number(data, 9));
  made.format.text_multiple = static_cast<std::size_t>(number(data, 9));
  made.format.targets = data.ConsumeBool();
  const bool wrong_silence = data.ConsumeIntegralInRange(0, 31) == 0;
  for (std::int64_t c = 0; c < std::min<std::int64_t>(made.bins, 64) + wrong_silence; ++c)
    made.format.silence.push_back(-1.0f - static_cast<float>(c));
  return made;
}

// Checksums that fit, so that what comes after them is reached.
void seal(Case& made) {
  for (std::size_t i = 0; i < made.columns.shard.size(); ++i) {
    const auto shard = static_cast<std::uint64_t>(made.columns.shard[i]);
    if (shard >= made.shards.size()) continue;
    const auto& content = made.contents[shard];
    const auto crc_part = [&](std::uint32_t crc, std::uint64_t base, std::int64_t begin, std::int64_t count,
                              std::int64_t width) {
      const __int128 first = __int128(base) + __int128(begin) * width, last = first + __int128(count) * width;
      if (first < 0 || last > __int128(content.size()) || last < first) return crc;
      return crc32c(crc, content.data() + static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
    };
    std::uint32_t crc = crc_part(0, made.shards[shard].mel.offset, made.columns.offset[i], made.columns.frames[i],
                                 std::clamp<std::int64_t>(made.bins, 0, 1 << 20) * 2);
    crc = crc_part(crc, made.shards[shard].text.offset, made.columns.text_offset[i], made.columns.symbols[i], 4);
    made.columns.crc32c[i] = crc;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider data(bytes, size);
  try {
    Case made = drawn(data);
    if (data.ConsumeBool()) seal(made);
    auto table = std::make_shared<const Table>(made.shards, made.columns, made.bins, made.alphabet, made.verify);
    Batcher batcher(table, made.format, 0, 1);
    for (int turns = data.ConsumeIntegralInRange(1, 2); turns > 0; --turns) {
      std::vector<std::int64_t> batch(data.ConsumeIntegralInRange<std::size_t>(0, 5));
      for (auto& index : batch) index = number(data, std::max<std::int64_t>(table->size() - 1, 0));
      const Layout layout = batcher.layout(batch);
      if (layout.bytes > (1 << 16)) break;
      if (data.ConsumeIntegralInRange(0, 7) == 0) {
        batcher.push(batch);
        batcher.clear();
      }
      // Exactly as large as promised, so that the sanitizer sees the first byte beyond it.
      const std::unique_ptr<unsigned char, void (*)(void*)> memory(
          static_cast<unsigned char*>(std::aligned_alloc(64, std::max<std::size_t>(layout.bytes, 64))), std::free);
      std::memset(memory.get(), 0xA5, layout.bytes);
      batcher.push(batch, {memory.get(), layout.bytes});
      const auto taken = batcher.take(std::chrono::milliseconds(0));
      require(taken.has_value());
      if (taken->failure.fault == Fault::none) compare(made, *table, batch, layout, memory.get());
    }
  } catch (const std::invalid_argument&) {
  } catch (const BadUtterance&) {
  }
  return 0;
}
