#include "programs/instruction_sets.hpp"

#include "simd/tables.hpp"

namespace fastdino {

extern const Kernels kGeneric, kEmulated;

namespace {

const Kernels* chosen = &kPortable;

}  // namespace

const Kernels& kernels() {
  return *chosen;
}

namespace testing {

std::vector<InstructionSet> instruction_sets() {
  std::vector<InstructionSet> sets = {
      {"portable", &kPortable}, {"generic", &kGeneric}, {"emulated AVX-512", &kEmulated}};
#if defined(FASTDINO_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) sets.push_back({"AVX2", &kAvx2});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    sets.push_back({"AVX-512", &kAvx512});
  }
#endif
  return sets;
}

void choose(const InstructionSet& set) {
  chosen = set.kernels;
}

}  // namespace testing
}  // namespace fastdino
