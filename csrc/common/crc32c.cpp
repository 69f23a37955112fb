#include "common/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TTSFAST_CRC_X86 1
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define TTSFAST_CRC_ARM 1
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

namespace ttsfast {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b] is the effect of byte b followed by k zero bytes, so eight bytes go in one step.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0u);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t byte = 0; byte < 256; ++byte)
      tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xFF];
  return tables;
}

constexpr Tables kTables = make_tables();

using Update = std::uint32_t (*)(std::uint32_t, const unsigned char*, std::size_t);

std::uint32_t update_table(std::uint32_t crc, const unsigned char* data, std::size_t size) {
  for (; size >= 8; size -= 8, data += 8) {
    // Bytes are read one by one, so the result does not depend on the byte order of the machine.
    const std::uint32_t low = crc ^ (std::uint32_t(data[0]) | std::uint32_t(data[1]) << 8 |
                                     std::uint32_t(data[2]) << 16 | std::uint32_t(data[3]) << 24);
    crc = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^ kTables[5][(low >> 16) & 0xFF] ^
          kTables[4][low >> 24] ^ kTables[3][data[4]] ^ kTables[2][data[5]] ^ kTables[1][data[6]] ^
          kTables[0][data[7]];
  }
  for (; size > 0; --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *data++) & 0xFF];
  return crc;
}

#if TTSFAST_CRC_X86

__attribute__((target("sse4.2"))) std::uint32_t update_hardware(std::uint32_t crc, const unsigned char* data,
                                                               std::size_t size) {
  std::uint64_t wide = crc;
  for (; size >= 8; size -= 8, data += 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<std::uint32_t>(wide);
  for (; size > 0; --size) crc = _mm_crc32_u8(crc, *data++);
  return crc;
}

bool has_hardware() { return __builtin_cpu_supports("sse4.2"); }
constexpr const char* kHardware = "sse4.2";

#elif TTSFAST_CRC_ARM

#if defined(__clang__)
__attribute__((target("crc")))
#else
__attribute__((target("+crc")))
#endif
std::uint32_t update_hardware(std::uint32_t crc, const unsigned char* data, std::size_t size) {
  for (; size >= 8; size -= 8, data += 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    crc = __crc32cd(crc, word);
  }
  for (; size > 0; --size) crc = __crc32cb(crc, *data++);
  return crc;
}

bool has_hardware() {
  constexpr unsigned long kHwcapCrc32 = 1ul << 7;
  return (getauxval(AT_HWCAP) & kHwcapCrc32) != 0;
}
constexpr const char* kHardware = "armv8";

#else

constexpr Update update_hardware = nullptr;
bool has_hardware() { return false; }
constexpr const char* kHardware = "table";

#endif

Update choose() { return has_hardware() ? Update(update_hardware) : Update(update_table); }

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size) {
  static const Update update = choose();
  return ~update(~crc, static_cast<const unsigned char*>(data), size);
}

std::uint32_t crc32c_table(std::uint32_t crc, const void* data, std::size_t size) {
  return ~update_table(~crc, static_cast<const unsigned char*>(data), size);
}

const char* crc32c_implementation() { return has_hardware() ? kHardware : "table"; }

}  // namespace ttsfast
