#include "common/team.h"

#include <atomic>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace ttsfast {
namespace {

// What compilers emit for `#pragma omp parallel`; GNU's, LLVM's and Intel's runtimes all provide it.
using Parallel = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

std::atomic<Parallel> parallel{nullptr};

}  // namespace

bool join_team_of(const char* path) {
#if defined(__linux__)
  void* const library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return false;
  void* const found = dlsym(library, "GOMP_parallel");
  dlclose(library);
  if (found == nullptr) return false;
  // A forked child has none of the team's threads, and the runtime would wait for them for ever.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { parallel.store(nullptr); });
  if (registered != 0) return false;
  parallel.store(reinterpret_cast<Parallel>(found));
  return true;
#else
  (void)path;
  return false;
#endif
}

bool leave_team() {
  parallel.store(nullptr);
  return false;
}

bool run_on_team(int threads, void (*run)(void*), void* context) {
  const Parallel start = parallel.load(std::memory_order_relaxed);
  if (start == nullptr) return false;
  start(run, context, static_cast<unsigned>(threads), 0);
  return true;
}

}  // namespace ttsfast
