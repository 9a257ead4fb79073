// What every machine of the architecture runs.
#if defined(__SSE2__)
#define FASTDINO_VEC "simd/vec_sse2.hpp"
#else
#define FASTDINO_VEC "simd/vec_generic.hpp"
#endif

#include "simd/color.inl"
#include "simd/hue.inl"
#include "simd/kernels.hpp"
#include "simd/pixels.inl"
#include "simd/rows.inl"
#include "simd/tables.hpp"

namespace fastdino {

const Kernels kPortable = {
    "portable", Vec::kMultipliesBytes, weigh_rows,  box_rows,    blend_solid, blend_luma, luma, sum,
    shift_hue,  store_bytes,           store_float, store_bfloat};

}  // namespace fastdino
