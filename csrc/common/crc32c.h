// CRC32C (Castagnoli polynomial 0x1EDC6F41, reflected 0x82F63B78; RFC 3720, appendix B.4).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ttsfast {

// The checksum of `size` bytes, continuing from `crc` (0 to begin with).
std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size);

// The same through the table, whatever the processor has.
std::uint32_t crc32c_table(std::uint32_t crc, const void* data, std::size_t size);

// "sse4.2", "armv8" or "table": what crc32c() uses on this processor.
const char* crc32c_implementation();

}  // namespace ttsfast
