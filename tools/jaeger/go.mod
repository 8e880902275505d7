// What tools/build_jaeger.sh builds: a Jaeger for the tests, pinned with all it is made of by go.sum.
module meshfold.example/jaeger

go 1.23.0

require github.com/jaegertracing/jaeger v1.62.0

replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
