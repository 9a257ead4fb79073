// Compiled with flags of its own: nothing here may call inline functions of the standard library, of which
// the linker would keep one copy for all.
#define FASTDINO_VEC "simd/vec_avx512.hpp"

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves registers undefined on purpose, and GCC warns of them where it is inlined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include "simd/color.inl"
#include "simd/hue.inl"
#include "simd/kernels.hpp"
#include "simd/pixels.inl"
#include "simd/rows.inl"
#include "simd/tables.hpp"

namespace fastdino {

const Kernels kAvx512 = {
    "avx512",  Vec::kMultipliesBytes, weigh_rows,  box_rows,    blend_solid, blend_luma, luma, sum,
    shift_hue, store_bytes,           store_float, store_bfloat};

}  // namespace fastdino
