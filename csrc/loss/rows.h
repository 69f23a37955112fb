// Blocks of rows of any type and strides, brought to the type and order that the arithmetic wants.
// Part of one instruction set's version of the fused losses; see common/vector.h.
#pragma once

#include <type_traits>

#include "common/half.h"
#include "loss/call.h"
#include "common/vector.h"

namespace ttsfast {
namespace TTSFAST_ISA {

struct StoredFloat {
  using Raw = float;
  static TTSFAST_INLINE float get(Raw raw) { return raw; }
  static TTSFAST_INLINE Raw put(double value) { return static_cast<float>(value); }
};

struct StoredDouble {
  using Raw = double;
  static TTSFAST_INLINE double get(Raw raw) { return raw; }
  static TTSFAST_INLINE Raw put(double value) { return value; }
};

struct StoredBfloat {
  using Raw = std::uint16_t;
  static TTSFAST_INLINE float get(Raw raw) {
    const std::uint32_t bits = std::uint32_t(raw) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  // Round to nearest, ties to even; NaN stays NaN.
  static TTSFAST_INLINE Raw put(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return static_cast<Raw>((bits >> 16) | 0x40u);
    return static_cast<Raw>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  }
};

struct StoredHalf {
  using Raw = std::uint16_t;
  static TTSFAST_INLINE float get(Raw raw) {
    float value;
    half_to_float_scalar(&raw, &value, 1);
    return value;
  }
  static TTSFAST_INLINE Raw put(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return static_cast<Raw>(sign | 0x7E00u);
    // 65520 is the first that rounds to infinity.
    if (magnitude >= 0x477FF000u) return static_cast<Raw>(sign | 0x7C00u);
    if (magnitude < 0x38800000u) {
      // Subnormal halves are multiples of 2^-24: adding 1/2 leaves that integer in the low mantissa bits,
      // rounded by the addition itself.
      float small;
      std::memcpy(&small, &magnitude, 4);
      const float shifted = small + 0.5f;
      std::uint32_t integer;
      std::memcpy(&integer, &shifted, 4);
      return static_cast<Raw>(sign | (integer - 0x3F000000u));
    }
    return static_cast<Raw>(sign | ((magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13));
  }
};

template <typename S>
constexpr Type type_of() {
  return sizeof(S) == 8 ? Type::f64 : sizeof(S) == 4 ? Type::f32 : Type::bf16;
}

struct Place {
  std::int64_t offset;  // of the block's first element
  std::int64_t rows, width;
  std::int64_t row_stride, column_stride;
};

TTSFAST_INLINE Place block_of(const View& view, std::int64_t batch, std::int64_t first, std::int64_t rows,
                              std::int64_t width) {
  return {batch * view.stride[0] + first * view.stride[1], rows, width, view.stride[1], view.stride[2]};
}

// A block of rows in memory of the computed type, elements of a row adjacent.
template <typename T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;
  explicit operator bool() const { return data != nullptr; }
  T* row(std::int64_t index) const { return data + index * stride; }
};

template <typename Stored, typename T>
void read_block(const View& view, const Place& place, T* to) {
  const auto* from = static_cast<const typename Stored::Raw*>(view.data) + place.offset;
  if (place.column_stride == 1) {
    for (std::int64_t r = 0; r < place.rows; ++r)
      for (std::int64_t c = 0; c < place.width; ++c)
        to[r * place.width + c] = static_cast<T>(Stored::get(from[r * place.row_stride + c]));
    return;
  }
  // A transposed view: rows are its adjacent elements.
  for (std::int64_t c = 0; c < place.width; ++c)
    for (std::int64_t r = 0; r < place.rows; ++r)
      to[r * place.width + c] =
          static_cast<T>(Stored::get(from[r * place.row_stride + c * place.column_stride]));
}

template <typename Stored, typename T>
void write_block(const View& view, const Place& place, const T* from) {
  auto* to = static_cast<typename Stored::Raw*>(view.data) + place.offset;
  if (place.column_stride == 1) {
    for (std::int64_t r = 0; r < place.rows; ++r)
      for (std::int64_t c = 0; c < place.width; ++c)
        to[r * place.row_stride + c] = Stored::put(from[r * place.width + c]);
    return;
  }
  for (std::int64_t c = 0; c < place.width; ++c)
    for (std::int64_t r = 0; r < place.rows; ++r)
      to[r * place.row_stride + c * place.column_stride] = Stored::put(from[r * place.width + c]);
}

template <typename S>
bool is_direct(const View& view, const Place& place) {
  return view.type == type_of<S>() && (place.column_stride == 1 || place.width <= 1);
}

// Whether all of these views are in bfloat16 or absent, elements of a row adjacent: then the arithmetic reads and
// writes them as they are stored.
template <int kCount>
bool are_bfloat(const View* const (&views)[kCount], int column_axis) {
  for (const View* view : views)
    if (view->data != nullptr && (view->type != Type::bf16 || view->stride[column_axis] != 1)) return false;
  return true;
}

// The block itself where it is already as wanted, otherwise a copy in scratch (which moves on). Where S is not T,
// are_bfloat has seen that it is as wanted.
template <typename S, typename T>
Rows<S> read_rows(const View& view, const Place& place, T*& scratch) {
  if (view.data == nullptr) return {};
  if (is_direct<S>(view, place)) return {static_cast<S*>(view.data) + place.offset, place.row_stride};
  if constexpr (std::is_same<S, T>::value) {
    T* copy = scratch;
    scratch += place.rows * place.width;
    switch (view.type) {
      case Type::f32: read_block<StoredFloat>(view, place, copy); break;
      case Type::f64: read_block<StoredDouble>(view, place, copy); break;
      case Type::bf16: read_block<StoredBfloat>(view, place, copy); break;
      case Type::f16: read_block<StoredHalf>(view, place, copy); break;
    }
    return {copy, place.width};
  }
  return {};
}

// Where to write a block: in place, or in scratch for write_rows to bring home.
template <typename S, typename T>
Rows<S> gradient_rows(const View& view, const Place& place, T*& scratch) {
  if (view.data == nullptr) return {};
  if (is_direct<S>(view, place)) return {static_cast<S*>(view.data) + place.offset, place.row_stride};
  if constexpr (std::is_same<S, T>::value) {
    T* copy = scratch;
    scratch += place.rows * place.width;
    return {copy, place.width};
  }
  return {};
}

template <typename S>
void write_rows(const View& view, const Place& place, const Rows<S>& rows) {
  if (view.data == nullptr || is_direct<S>(view, place)) return;
  if constexpr (!std::is_same<S, Bfloat>::value) {
    switch (view.type) {
      case Type::f32: write_block<StoredFloat>(view, place, rows.data); break;
      case Type::f64: write_block<StoredDouble>(view, place, rows.data); break;
      case Type::bf16: write_block<StoredBfloat>(view, place, rows.data); break;
      case Type::f16: write_block<StoredHalf>(view, place, rows.data); break;
    }
  }
}

template <typename Raw>
void zero_strided(Raw* to, const Place& place) {
  for (std::int64_t r = 0; r < place.rows; ++r)
    for (std::int64_t c = 0; c < place.width; ++c) to[r * place.row_stride + c * place.column_stride] = Raw(0);
}

// Zeros of `bytes` bytes, past the caches where asked.
TTSFAST_INLINE void zero_bytes(char* to, std::int64_t bytes, bool stream) {
  if (stream) {
    const FloatVector nothing{};
    constexpr std::int64_t width = sizeof(FloatVector);
    const std::int64_t head = -reinterpret_cast<std::intptr_t>(to) & (width - 1);
    if (bytes > head + width) {
      std::memset(to, 0, static_cast<std::size_t>(head));
      to += head;
      bytes -= head;
      for (; bytes >= width; bytes -= width, to += width) store_streaming(to, nothing);
    }
  }
  std::memset(to, 0, static_cast<std::size_t>(bytes));
}

inline void zero_rows(const View& view, const Place& place, bool stream) {
  if (view.data == nullptr || place.rows <= 0 || place.width <= 0) return;
  const std::int64_t size = view.type == Type::f64 ? 8 : view.type == Type::f32 ? 4 : 2;
  char* to = static_cast<char*>(view.data) + place.offset * size;
  if (place.column_stride == 1 || place.width == 1) {
    if (place.row_stride == place.width) {
      zero_bytes(to, place.rows * place.width * size, stream);
    } else {
      for (std::int64_t r = 0; r < place.rows; ++r) zero_bytes(to + r * place.row_stride * size, place.width * size, stream);
    }
  } else if (size == 2) {
    zero_strided(reinterpret_cast<std::uint16_t*>(to), place);
  } else if (size == 4) {
    zero_strided(reinterpret_cast<float*>(to), place);
  } else {
    zero_strided(reinterpret_cast<double*>(to), place);
  }
}

}  // namespace TTSFAST_ISA
}  // namespace ttsfast
