// What every machine of the architecture runs.
#if defined(__SSE2__)
#include "vec_sse2.hpp"
#else
#include "vec_generic.hpp"
#endif

#include "kernels.hpp"
#include "registers.inl"
#include "color.inl"
#include "hue.inl"
#include "pixels.inl"
#include "rows.inl"
#include "tables.hpp"

namespace fastdino {
const Kernels kPortable = {"portable",      weigh_rows, box_rows,    blend_solid, blend_luma,  luma,
                          sum, shift_hue,   store_bytes, store_float, store_bfloat};
}
