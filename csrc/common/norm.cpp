#include "common/norm.h"

#include <algorithm>
#include <cmath>

#include "common/pool.h"

namespace ttsfast {
namespace {

constexpr std::int64_t kPiece = 1 << 15;  // elements that one thread takes at a time
constexpr std::int64_t kRun = 1 << 10;    // elements added up in single precision
constexpr int kLanes = 16;

double squares_of_run(const float* numbers, std::int64_t count) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += numbers[i + lane] * numbers[i + lane];
  for (; i < count; ++i) lanes[0] += numbers[i] * numbers[i];
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

struct Sums {
  std::vector<Numbers> pieces;
  std::vector<double> squares;

  void add(std::int64_t index) {
    const Numbers& piece = pieces[static_cast<std::size_t>(index)];
    double sum = 0;
    for (std::int64_t i = 0; i < piece.size; i += kRun)
      sum += squares_of_run(piece.data + i, std::min(kRun, piece.size - i));
    squares[static_cast<std::size_t>(index)] = sum;
  }
};

}  // namespace

double norm(const std::vector<Numbers>& tensors, int threads) {
  Sums sums;
  for (const Numbers& tensor : tensors)
    for (std::int64_t i = 0; i < tensor.size; i += kPiece)
      sums.pieces.push_back({tensor.data + i, std::min(kPiece, tensor.size - i)});
  sums.squares.resize(sums.pieces.size());
  parallel_for(
      static_cast<std::int64_t>(sums.pieces.size()), threads,
      [](void* context, int, std::int64_t index) { static_cast<Sums*>(context)->add(index); }, &sums);
  double total = 0;
  for (const double square : sums.squares) total += square;
  return std::sqrt(total);
}

}  // namespace ttsfast
