// The kernels as a machine without SSE2 has them.
#define FASTDINO_VEC "simd/vec_generic.hpp"

#include "simd/color.inl"
#include "simd/hue.inl"
#include "simd/kernels.hpp"
#include "simd/pixels.inl"
#include "simd/rows.inl"

namespace fastdino {

extern const Kernels kGeneric;
const Kernels kGeneric = {
    "generic", Vec::kMultipliesBytes, weigh_rows,  box_rows,    blend_solid, blend_luma, luma, sum,
    shift_hue, store_bytes,           store_float, store_bfloat};

}  // namespace fastdino
