#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "simd/kernels.hpp"
#include "simd/tables.hpp"

namespace fastdino {
namespace {

// Fastest first.
std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> tables;
#if defined(FASTDINO_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    tables.push_back(&kAvx512);
  }
  if (__builtin_cpu_supports("avx2")) tables.push_back(&kAvx2);
#endif
  tables.push_back(&kPortable);
  return tables;
}

const Kernels& choose() {
  const std::vector<const Kernels*> tables = runnable();
  const char* wanted = std::getenv("FASTDINO_SIMD");
  if (wanted == nullptr || *wanted == '\0') return *tables.front();
  std::string names;
  for (const Kernels* table : tables) {
    if (std::strcmp(table->name, wanted) == 0) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("FASTDINO_SIMD is " + std::string(wanted) + "; this CPU runs " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace fastdino
