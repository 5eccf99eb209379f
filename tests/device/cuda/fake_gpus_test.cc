// A GPU that the build has no code for is named with that before anything is asked of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/cuda/cuda_devices.h"
#include "tests/device/cuda/fake_gpu.h"

namespace kvasir::device {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(FakeGpusTest, AGpuThatIsTooOldForTheBuildIsSaidToBe) {
  SetFakeComputeMajor(7);
  auto gpus = LookAtCudaGpus();
  ASSERT_TRUE(gpus.ok()) << MessageOf(gpus.status());
  ASSERT_EQ(gpus->size(), 1U);
  EXPECT_THAT(gpus->front().missing,
              ElementsAre("code in this build, which begins at compute capability 8.0"));
  const absl::Status opened = OpenCudaDevice("cuda:0").status();
  EXPECT_EQ(opened.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(opened), HasSubstr("lacks code in this build"));

  SetFakeComputeMajor(8);
  gpus = LookAtCudaGpus();
  ASSERT_TRUE(gpus.ok()) << MessageOf(gpus.status());
  EXPECT_THAT(gpus->front().missing, IsEmpty());
  EXPECT_TRUE(OpenCudaDevice("cuda:0").ok());
}

}  // namespace
}  // namespace kvasir::device
