#include "common/half.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "common/half_kernels.h"
#include "common/half_scalar.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <xmmintrin.h>
#define TTSFAST_FENCE() _mm_sfence()
#else
#define TTSFAST_FENCE()
#endif

namespace ttsfast {

void floats_plain(const std::uint16_t* from, float* to, std::size_t count, bool) {
  for (std::size_t i = 0; i < count; ++i) {
    const float value = widen(load_half(from + i));
    std::memcpy(to + i, &value, 4);
  }
}

void bfloats_plain(const std::uint16_t* from, std::uint16_t* to, std::size_t count, bool) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t value = to_bfloat(widen(load_half(from + i)));
    std::memcpy(to + i, &value, 2);
  }
}

void copy_plain(const unsigned char* from, unsigned char* to, std::size_t bytes, bool) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

namespace {

const HalfKernels* half_plain() {
  static const HalfKernels kernels{"scalar", floats_plain, bfloats_plain, copy_plain};
  return &kernels;
}

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

// Every aarch64 processor converts; the compiler vectorises the loop.
void floats_neon(const std::uint16_t* from, float* to, std::size_t count, bool) {
  for (std::size_t i = 0; i < count; ++i) {
    __fp16 half;
    std::memcpy(&half, from + i, 2);
    const float value = half;
    std::memcpy(to + i, &value, 4);
  }
}

const HalfKernels* half_neon() {
  static const HalfKernels kernels{"neon", floats_neon, bfloats_plain, copy_plain};
  return &kernels;
}

#else

const HalfKernels* half_neon() { return nullptr; }

#endif

// The best first.
const std::vector<const HalfKernels*>& available() {
  static const std::vector<const HalfKernels*> found = [] {
    std::vector<const HalfKernels*> all;
    for (const HalfKernels* one : {half_avx512(), half_f16c(), half_neon(), half_plain()})
      if (one != nullptr) all.push_back(one);
    return all;
  }();
  return found;
}

const HalfKernels& kernels() {
  static const HalfKernels& best = *available().front();
  return best;
}

// Bytes from `to` up to the next multiple of 64.
std::size_t before_line(const void* to) { return (64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64; }

// Up to the first whole line by way of the caches, from there past them, where that is asked for.
template <typename From, typename To>
void in_lines(void (*kernel)(const From*, To*, std::size_t, bool), const From* from, To* to, std::size_t count,
              bool streaming) {
  const std::size_t head = before_line(to);
  if (!streaming || head % sizeof(To) != 0) {
    kernel(from, to, count, false);
    return;
  }
  const std::size_t first = std::min(head / sizeof(To), count);
  if (first > 0) kernel(from, to, first, false);
  kernel(from + first, to + first, count - first, true);
}

void convert_by(const HalfKernels& by, const std::uint16_t* from, Element element, void* to, std::size_t count,
                bool streaming) {
  if (element == Element::f16) {
    in_lines(by.copy, reinterpret_cast<const unsigned char*>(from), static_cast<unsigned char*>(to), count * 2,
             streaming);
  } else if (element == Element::bf16) {
    in_lines(by.bfloats, from, static_cast<std::uint16_t*>(to), count, streaming);
  } else {
    in_lines(by.floats, from, static_cast<float*>(to), count, streaming);
  }
}

}  // namespace

Element element_named(const std::string& name) {
  if (name == "float32") return Element::f32;
  if (name == "bfloat16") return Element::bf16;
  if (name == "float16") return Element::f16;
  throw std::invalid_argument("dtype is " + name + ", must be float32, bfloat16 or float16");
}

void half_to_float_scalar(const std::uint16_t* from, float* to, std::size_t count) {
  floats_plain(from, to, count, false);
}

void round_float(const float* from, Element element, void* to, std::size_t count) {
  auto* out = static_cast<unsigned char*>(to);
  if (element == Element::f32) {
    std::memcpy(out, from, count * 4);
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t value = element == Element::bf16 ? to_bfloat(from[i]) : narrow(from[i]);
    std::memcpy(out + 2 * i, &value, 2);
  }
}

void convert_half(const std::uint16_t* from, Element element, void* to, std::size_t count, bool streaming) {
  convert_by(kernels(), from, element, to, count, streaming);
}

void convert_half_by(const std::string& name, const std::uint16_t* from, Element element, void* to,
                     std::size_t count, bool streaming) {
  for (const HalfKernels* one : available())
    if (name == one->name) {
      convert_by(*one, from, element, to, count, streaming);
      end_streaming();
      return;
    }
  throw std::invalid_argument("this processor has no " + name);
}

void copy_bytes(const void* from, void* to, std::size_t bytes, bool streaming) {
  in_lines(kernels().copy, static_cast<const unsigned char*>(from), static_cast<unsigned char*>(to), bytes,
           streaming);
}

void end_streaming() { TTSFAST_FENCE(); }

std::vector<std::string> half_implementations() {
  std::vector<std::string> names;
  for (const HalfKernels* one : available()) names.emplace_back(one->name);
  return names;
}

}  // namespace ttsfast
