#include "loss/losses.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "common/pool.h"

namespace ttsfast {
namespace {

// Elements per task: a few of these blocks fit the nearest cache together, and a batch makes enough of them
// to share out evenly.
constexpr std::int64_t kBlockElements = 5120;

// Tasks, about, that take as long as waking a thread.
constexpr std::int64_t kTasksPerThread = 6;

// Gradients of more bytes than this would only push each other out of the caches on their way to memory.
constexpr std::int64_t kStreamBytes = 12 << 20;

enum Unit { kFrames, kStopSteps, kAttentionSteps, kUtterances };

struct Counting {
  std::vector<std::int64_t> tails;
  std::vector<std::int64_t> own[4];  // by unit, per utterance
  double divisors[4] = {};
};

Counting count(const LossOptions& options, const LossTensors& tensors) {
  const Call& call = tensors.call;
  const auto batch = static_cast<std::size_t>(call.batch);
  Counting counting;
  counting.tails.resize(batch);
  for (auto& part : counting.own) part.resize(batch);
  double sums[4] = {};
  for (std::size_t b = 0; b < batch; ++b) {
    const std::int64_t steps = tensors.step_lengths[b];
    std::int64_t tail = options.stop_tail;
    if (tensors.present[2]) tail = std::min(tail, call.steps - steps);
    if (steps == 0 || tensors.truncated[b]) tail = 0;
    counting.tails[b] = tail;
    counting.own[kFrames][b] = tensors.mel_lengths[b];
    counting.own[kStopSteps][b] = steps + tail;
    counting.own[kAttentionSteps][b] = steps;
    counting.own[kUtterances][b] = tensors.mel_lengths[b] > 0;
    for (int unit = 0; unit < 4; ++unit) sums[unit] += static_cast<double>(counting.own[unit][b]);
  }
  const Normalizer& given = tensors.normalizer;
  const int known = options.by_utterance ? kUtterances : kFrames;
  const double growth = given.values[0] / std::max(sums[known], 1.0);
  for (int unit = 0; unit < 4; ++unit) {
    double divisor = sums[unit];
    if (given.kind == Normalizer::counts) divisor = given.values[unit];
    if (given.kind == Normalizer::scalar) divisor = unit == known ? given.values[0] : divisor * growth;
    // Not std::max: a NaN must stay one.
    counting.divisors[unit] = divisor < 1.0 ? 1.0 : divisor;
  }
  return counting;
}

// What one unit of utterance b counts in the term's average.
double share(const LossOptions& options, const Counting& counting, int unit, std::size_t b) {
  if (!options.by_utterance) return 1.0 / counting.divisors[unit];
  return 1.0 / (static_cast<double>(std::max<std::int64_t>(counting.own[unit][b], 1)) * counting.divisors[kUtterances]);
}

struct TermPlan {
  Term* term;
  int unit;
  double divisor;  // besides the unit's
};

struct Work {
  Call& call;
  LossTask* run;
  unsigned char* scratch;
  std::size_t bytes;  // of each thread
};

// For all threads of a call, kept by its caller between calls: a task must not run out of memory.
unsigned char* scratch_of(std::size_t bytes) {
  thread_local std::vector<unsigned char> memory;
  if (memory.size() < bytes + 64) memory.resize(bytes + 64);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return memory.data() + (64 - address % 64) % 64;
}

void run_task(void* context, int slot, std::int64_t task) {
  const auto& work = *static_cast<Work*>(context);
  work.run(work.call, task, work.scratch + static_cast<std::size_t>(slot) * work.bytes);
}

std::int64_t gradient_bytes(const Call& call) {
  const auto bytes = [](const View& view, std::int64_t elements) {
    if (view.data == nullptr) return std::int64_t(0);
    return elements * (view.type == Type::f64 ? 8 : view.type == Type::f32 ? 4 : 2);
  };
  const std::int64_t mel = call.batch * call.frames * call.bins;
  const std::int64_t latents = call.batch * (call.per_frame ? call.frames : 1) * call.latents;
  std::int64_t total = bytes(call.target_gradient, mel);
  for (const View& view : call.prediction_gradient) total += bytes(view, mel);
  for (const View& view : call.posterior_gradient) total += bytes(view, latents);
  for (const View& view : call.prior_gradient) total += bytes(view, latents);
  for (std::int64_t i = 0; i < call.layer_count; ++i)
    total += bytes(call.layers[i].gradient, call.batch * call.layers[i].heads * call.attention_steps * call.symbols);
  return total;
}

std::int64_t blocks_of(std::int64_t rows, std::int64_t block) { return (rows + block - 1) / block; }

// The fixed grid of tasks. It depends on shapes alone, so the order of summation does too.
void lay_out(LossTensors& tensors) {
  Call& call = tensors.call;
  const auto rows_per_block = [](std::int64_t width) {
    return std::clamp<std::int64_t>(kBlockElements / std::max<std::int64_t>(width, 1), 1, 64);
  };
  std::int64_t next = 0;
  const auto place = [&](Term& term, bool present, std::int64_t rows, std::int64_t width) {
    term.first = next;
    term.block = rows_per_block(width);
    term.blocks = blocks_of(rows, term.block);
    if (present) next += call.batch * term.blocks;
  };
  place(call.mel, true, call.frames, call.bins);
  place(call.kl, tensors.present[1], call.per_frame ? call.frames : 1, call.latents);
  call.stop.first = next;
  call.stop.block = call.stop.blocks = 1;
  if (tensors.present[2]) next += call.batch;
  call.attention.first = next;
  call.attention.block = rows_per_block(call.symbols);
  call.attention.blocks = blocks_of(call.attention_steps, call.attention.block);
  for (Layer& layer : tensors.layers) {
    layer.first = next;
    next += call.batch * layer.heads * call.attention.blocks;
  }
  call.tasks = next;
}

double sum_range(const double* sums, std::int64_t count) {
  double total = 0;
  for (std::int64_t i = 0; i < count; ++i) total += sums[i];
  return total;
}

}  // namespace

std::size_t scratch_bytes(const Call& call) {
  const std::int64_t mel = 7 * call.mel.block * call.bins, kl = 8 * call.kl.block * call.latents;
  const std::int64_t stop = 2 * call.steps, attention = 2 * call.attention.block * call.symbols;
  return static_cast<std::size_t>(std::max({mel, kl, stop, attention})) * (call.wide ? 8 : 4);
}

LossValues run_losses(const LossOptions& options, LossTensors& tensors, int threads, Isa isa) {
  Call& call = tensors.call;
  const auto batch = static_cast<std::size_t>(call.batch);
  const Counting counting = count(options, tensors);
  lay_out(tensors);

  std::int64_t heads = 0;
  for (const Layer& layer : tensors.layers) heads += layer.heads;
  const auto bins = static_cast<double>(call.bins);
  const TermPlan plans[kTerms] = {
      {&call.mel, kFrames, bins},
      {&call.kl, options.elbo || call.per_frame ? kFrames : kUtterances, options.elbo ? bins : 1.0},
      {&call.stop, kStopSteps, 1.0},
      {&call.attention, kAttentionSteps, static_cast<double>(std::max<std::int64_t>(heads, 1))},
  };
  // Shares, scales and sums in one allocation.
  const std::unique_ptr<double[]> memory(new double[2 * kTerms * batch + static_cast<std::size_t>(call.tasks)]);
  double* shares[kTerms];
  for (int i = 0; i < kTerms; ++i) {
    shares[i] = memory.get() + 2 * static_cast<std::size_t>(i) * batch;
    double* scales = shares[i] + batch;
    for (std::size_t b = 0; b < batch; ++b) {
      shares[i][b] = share(options, counting, plans[i].unit, b) / plans[i].divisor;
      scales[b] = shares[i][b] * tensors.weights[i] * tensors.grad_scale;
    }
    plans[i].term->scale = scales;
  }
  call.sums = memory.get() + 2 * kTerms * batch;
  call.mel_lengths = tensors.mel_lengths.data();
  call.step_lengths = tensors.step_lengths.data();
  call.text_lengths = tensors.text_lengths.data();
  call.truncated = tensors.truncated.data();
  call.tails = counting.tails.data();
  call.layers = tensors.layers.data();
  call.layer_count = static_cast<std::int64_t>(tensors.layers.size());
  call.distance = options.distance;
  call.delta = options.delta;
  call.smoothing = options.smoothing;
  call.amount = options.amount;
  call.seed = options.seed;
  call.free_bits = options.free_bits;
  call.sigma = options.sigma;
  std::copy(&options.coefficients[0][0], &options.coefficients[0][0] + 4, &call.coefficients[0][0]);
  call.stream = gradient_bytes(call) > kStreamBytes;

  const auto useful = static_cast<int>(std::clamp<std::int64_t>(call.tasks / kTasksPerThread, 1, std::max(threads, 1)));
  // In whole lines of the cache, so that no two threads write to one.
  const std::size_t bytes = (scratch_bytes(call) + 63) / 64 * 64;
  Work work{call, TTSFAST_VERSION(isa, ttsfast, loss_task), scratch_of(bytes * static_cast<std::size_t>(useful)), bytes};
  parallel_for(call.tasks, useful, run_task, &work);

  LossValues result;
  for (std::size_t b = 0; b < batch; ++b) {
    const auto index = static_cast<std::int64_t>(b);
    result.frames += tensors.mel_lengths[b];
    const double* mel = call.sums + call.mel.first + index * call.mel.blocks;
    result.values[0] += sum_range(mel, call.mel.blocks) * shares[0][b];
    const auto frames = static_cast<double>(counting.own[kFrames][b]);
    // The floor is per element already, so it is not divided by their number.
    result.floors[0] += frames * options.mel_floor * call.predictions * shares[0][b] * bins;
    if (tensors.present[1]) {
      const double* kl = call.sums + call.kl.first + index * call.kl.blocks;
      result.values[1] += sum_range(kl, call.kl.blocks) * shares[1][b];
      const double vectors = call.per_frame ? frames : static_cast<double>(counting.own[kUtterances][b]);
      result.floors[1] += vectors * options.free_bits * shares[1][b];
    }
    if (tensors.present[2]) {
      result.values[2] += call.sums[call.stop.first + index] * shares[2][b];
      const std::int64_t included = counting.own[kStopSteps][b];
      const bool ends = tensors.step_lengths[b] > 0 && !tensors.truncated[b];
      const std::int64_t positives = ends ? 1 + counting.tails[b] : 0;
      result.floors[2] += (static_cast<double>(positives) * options.stop_floors[1] +
                           static_cast<double>(included - positives) * options.stop_floors[0]) *
                          shares[2][b];
    }
    for (const Layer& layer : tensors.layers) {
      const std::int64_t tasks = layer.heads * call.attention.blocks;
      result.values[3] += sum_range(call.sums + layer.first + index * tasks, tasks) * shares[3][b];
    }
  }
  for (int i = 0; i < kTerms; ++i)
    if (tensors.present[i] && options.active[i]) result.total += tensors.weights[i] * result.values[i];
  return result;
}

}  // namespace ttsfast
