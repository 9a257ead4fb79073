// Stands in for csrc/simd/dispatch.cpp: the kernels of every instruction set, one after another.
#pragma once

#include <vector>

#include "simd/kernels.hpp"

namespace fastdino::testing {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
};

// What every machine runs first, then what this one runs too; AVX-512 is emulated beside that.
std::vector<InstructionSet> instruction_sets();

// What kernels() returns from now on.
void choose(const InstructionSet& set);

}  // namespace fastdino::testing
