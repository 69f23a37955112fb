// The batcher under every kind of disturbance at once, for ThreadSanitizer and AddressSanitizer: seeks, leases
// that end in other threads and in any order, more of them than slots, waits cut short, closing in the midst of
// it all. Each batch is compared with what it must hold. Build and run: see csrc/fuzz/README.md.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "batcher/batcher.h"

namespace {

using namespace ttsfast;

constexpr std::int64_t kBins = 8, kUtterances = 64, kMostFrames = 40;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::abort();
}

// Utterance i has 1 + i % kMostFrames frames, each value of which is the half with the bits i.
std::shared_ptr<const Table> make_table(int descriptor, bool in_file, std::vector<unsigned char>& content) {
  Columns columns;
  std::int64_t rows = 0;
  std::vector<std::uint16_t> mel;
  std::vector<std::int32_t> text;
  for (std::int64_t i = 0; i < kUtterances; ++i) {
    const std::int64_t frames = 1 + i % kMostFrames;
    columns.shard.push_back(0);
    columns.offset.push_back(rows);
    columns.frames.push_back(frames);
    columns.text_offset.push_back(i);
    columns.symbols.push_back(1);
    columns.speaker.push_back(i);
    columns.crc32c.push_back(0);
    columns.truncated.push_back(i % 2 == 1);
    mel.insert(mel.end(), static_cast<std::size_t>(frames * kBins), static_cast<std::uint16_t>(i));
    text.push_back(static_cast<std::int32_t>(i + 1));
    rows += frames;
  }
  content.resize(mel.size() * 2 + text.size() * 4);
  std::memcpy(content.data(), mel.data(), mel.size() * 2);
  std::memcpy(content.data() + mel.size() * 2, text.data(), text.size() * 4);
  Shard shard;
  shard.rows = rows;
  shard.symbols = kUtterances;
  shard.text.offset = mel.size() * 2;
  if (in_file) {
    require(pwrite(descriptor, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()), "write");
    shard.file = std::make_shared<const File>(descriptor);
  } else {
    place_in_memory(shard, content.data(), content.size(), kBins);
  }
  return std::make_shared<const Table>(std::vector<Shard>{shard}, columns, kBins, kUtterances + 1, false);
}

struct Held {
  Made made;
  std::vector<std::int64_t> utterances;

  void check() const {
    const Layout& layout = made.layout;
    const unsigned char* slot = made.lease.data();
    for (std::size_t row = 0; row < utterances.size(); ++row)
      for (std::size_t t = 0; t < layout.frames; ++t) {
        std::uint16_t half;
        std::memcpy(&half, slot + layout.mel + ((row * layout.frames + t) * kBins + t % kBins) * 2, 2);
        const bool own = t < static_cast<std::size_t>(1 + utterances[row] % kMostFrames);
        require(half == (own ? utterances[row] : 0), "a batch holds its own values");
      }
  }
};

void one_round(std::uint64_t seed, int descriptor) {
  std::mt19937_64 random(seed);
  std::vector<unsigned char> content;
  const auto table = make_table(descriptor, seed % 2 == 0, content);
  Format format;
  format.element = Element::f16;
  format.targets = seed % 3 == 0;
  format.silence.assign(kBins, 0.0f);
  Batcher batcher(table, format, 1 + random() % 4, 1 + random() % 4, (random() % 2) << 18);
  std::deque<std::vector<std::int64_t>> pushed;
  std::deque<Held> held;
  std::vector<std::thread> releasers;
  std::thread closer;
  const std::uint64_t closing = random() % 2 ? random() % 400 : ~std::uint64_t(0);
  try {
    for (std::uint64_t turn = 0; turn < 400; ++turn) {
      if (turn == closing) closer = std::thread([&batcher] { batcher.close(); });
      while (pushed.size() < 6) {
        std::vector<std::int64_t> batch(1 + random() % 8);
        for (auto& index : batch) index = static_cast<std::int64_t>(random() % kUtterances);
        batcher.push(batch);
        pushed.push_back(batch);
      }
      if (random() % 16 == 0) {
        batcher.clear();
        pushed.clear();
        continue;
      }
      (void)batcher.ready();
      auto made = batcher.take(std::chrono::milliseconds(random() % 3));
      if (!made) continue;
      require(made->failure.fault == Fault::none, "no failure");
      held.push_back({std::move(*made), std::move(pushed.front())});
      pushed.pop_front();
      // Now and then many are kept; every one must still be what it was.
      while (held.size() > (turn / 50 % 2 ? 9 : 1)) {
        held.front().check();
        if (random() % 4 == 0) {
          releasers.emplace_back([last = std::move(held.front())]() mutable { last.check(); });
        }
        held.pop_front();
      }
    }
  } catch (const Closed&) {
    require(closing != ~std::uint64_t(0), "closed only when asked");
  }
  if (closer.joinable()) closer.join();
  batcher.close();
  for (std::thread& thread : releasers) thread.join();
  for (const Held& one : held) one.check();
}

}  // namespace

int main(int count, char** arguments) {
  const std::uint64_t rounds = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 50;
  const int descriptor = memfd_create("shard", 0);
  for (std::uint64_t seed = 0; seed < rounds; ++seed) one_round(seed, descriptor);
  std::printf("%llu rounds, no failure\n", static_cast<unsigned long long>(rounds));
  close(descriptor);
  return 0;
}
