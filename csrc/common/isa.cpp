#include "common/isa.h"

#include <stdexcept>

namespace ttsfast {

bool supports(Isa isa) {
#if TTSFAST_X86
  // These ask whether the operating system keeps the wide registers, too.
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && supports(Isa::avx2);
#endif
  return isa == Isa::baseline || isa == Isa::best;
}

Isa chosen(Isa isa) {
  if (isa != Isa::best) return isa;
  static const Isa found = supports(Isa::avx512) ? Isa::avx512 : supports(Isa::avx2) ? Isa::avx2 : Isa::baseline;
  return found;
}

const char* name_of(Isa isa) {
  switch (chosen(isa)) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

Isa isa_named(const std::string& name) {
  const Isa isa = name == "auto"       ? Isa::best
                  : name == "baseline" ? Isa::baseline
                  : name == "avx2"     ? Isa::avx2
                  : name == "avx512"   ? Isa::avx512
                                       : throw std::invalid_argument("unknown instruction set " + name);
  if (!supports(isa)) throw std::invalid_argument("this processor has no " + name);
  return isa;
}

}  // namespace ttsfast
