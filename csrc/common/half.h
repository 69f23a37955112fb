// What the store keeps (IEEE binary16) into what a batch holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ttsfast {

// The type of a batch's mel values.
enum class Element : std::uint8_t { f32, bf16, f16 };

// "float32", "bfloat16" or "float16"; throws std::invalid_argument for another name.
Element element_named(const std::string& name);

constexpr std::size_t element_bytes(Element element) { return element == Element::f32 ? 4 : 2; }

// binary16 to float, exactly (subnormals and infinities included; a NaN becomes quiet), as any processor can.
void half_to_float_scalar(const std::uint16_t* from, float* to, std::size_t count);

// float to `to`, rounded to nearest even; NaN stays a NaN.
void round_float(const float* from, Element element, void* to, std::size_t count);

// binary16 to any element. Neither address need be aligned. `streaming` writes past the caches, for what is
// larger than they are and is read later; whoever hands it to another thread calls end_streaming() first.
void convert_half(const std::uint16_t* from, Element element, void* to, std::size_t count, bool streaming);

// A copy that may stream, as above.
void copy_bytes(const void* from, void* to, std::size_t bytes, bool streaming);
void end_streaming();

// What convert_half() may use on this processor, the best, which it does use, first: "avx512", "f16c", "neon",
// "scalar".
std::vector<std::string> half_implementations();

// convert_half() by one of them, finished. Throws std::invalid_argument where the processor lacks it.
void convert_half_by(const std::string& name, const std::uint16_t* from, Element element, void* to,
                     std::size_t count, bool streaming);

}  // namespace ttsfast
