#pragma once

#include "simd/kernels.hpp"

namespace fastdino {

extern const Kernels kPortable;
#if defined(FASTDINO_X86)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace fastdino
