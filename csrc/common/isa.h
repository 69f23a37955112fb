// The instruction sets that kernels are compiled for, and which of them this processor has.
#pragma once

#include <string>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TTSFAST_X86 1
#endif

namespace ttsfast {

// `baseline` is the compiler's default target: SSE2 on x86-64, NEON on aarch64.
enum class Isa : int { best = 0, baseline = 1, avx2 = 2, avx512 = 3 };

bool supports(Isa isa);

// What `best` stands for; any other stands for itself.
Isa chosen(Isa isa);

// "avx512", "avx2" or "baseline"; the other way also "auto" for the best, and std::invalid_argument for a name that is
// unknown or that this processor has not.
const char* name_of(Isa isa);
Isa isa_named(const std::string& name);

// The function of that name in the namespace of an instruction set that this processor has, all within `room`.
#if TTSFAST_X86
#define TTSFAST_VERSION(isa, room, name)                      \
  (::ttsfast::chosen(isa) == ::ttsfast::Isa::avx512 ? &room::avx512::name \
   : ::ttsfast::chosen(isa) == ::ttsfast::Isa::avx2 ? &room::avx2::name   \
                                                    : &room::baseline::name)
#else
#define TTSFAST_VERSION(isa, room, name) (&room::baseline::name)
#endif

}  // namespace ttsfast
